"""The numbers of a report: URIs, throughput, the limiting step, spans of time, shares."""

import json
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from captioner.jobs.publish.privacy import public_text, public_uri, shortened_uri
from captioner.jobs.publish.report.pace import read_pace
from captioner.jobs.publish.report.words import duration, number, share
from captioner.schemas.job_report import JobReport

START = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("/photos/what? #1.jpg", "/photos/what? #1.jpg"),
        ("s3://bucket/a?b=c.jpg", "s3://bucket/a?b=c.jpg"),
        ("https://h/a b.jpg?sig=x y&k", "https://h/a b.jpg"),
        ("HTTPS://h/a.jpg?sig=x#row=no", "HTTPS://h/a.jpg"),
        ("https://h/p.parquet#row=3", "https://h/p.parquet#row=3"),
        ("https://h/p.parquet?sig=x#row=3", "https://h/p.parquet#row=3"),
        ("tar://x/a.jpg::https://me:pw@h/t.tar?sig=x", "tar://x/a.jpg::https://h/t.tar"),
    ],
)
def test_a_uri_is_shown_without_what_may_be_secret(uri: str, shown: str) -> None:
    assert public_uri(uri) == shown


def test_a_text_that_quotes_urls_is_shown_without_what_may_be_secret() -> None:
    uri = "https://h/a b.jpg?sig=x y"
    text = f"cannot read '{uri}', from 's3://me:pw@h/x?sig=x': why?"
    assert public_text(text, uri) == "cannot read 'https://h/a b.jpg', from 's3://h/x': why?"


def test_a_long_uri_keeps_its_beginning_and_its_end() -> None:
    shown = shortened_uri(f"/photos/{'x' * 500}/last.jpg", 50)
    assert len(shown) == 50 and shown.startswith("/photos/") and shown.endswith("/last.jpg")


def report_of(seconds: float) -> JobReport:
    return JobReport("r", "s", "t", START, START + timedelta(seconds=seconds), 0)


def committed(at: float, images: int, **values: float) -> str:
    time = (START + timedelta(seconds=at)).isoformat()
    return json.dumps({"at": time, "event": "committed", "part": "p", "images": images, **values})


def test_the_throughput_counts_every_image_at_its_time() -> None:
    events = [committed(at, 12) for at in (24, 36, 42, 48)]
    failed = json.dumps({"at": START.isoformat(), "event": "failed", "part": "p", "images": 9})
    pace = read_pace([failed, *events], report_of(48))
    assert pace is not None and pace.took == 0
    expected = [0.5] * 24 + [1.0] * 12 + [2.0] * 12
    assert pace.rates == pytest.approx(np.array(expected))


def test_a_part_counts_for_the_time_that_it_took() -> None:
    events = [committed(at, 12, took=12) for at in (24, 24, 48, 48)]
    pace = read_pace(events, report_of(48))
    assert pace is not None and pace.took == 48
    assert pace.rates == pytest.approx(np.array(([0.0] * 12 + [2.0] * 12) * 2))


def test_a_few_parts_make_no_throughput() -> None:
    assert read_pace([committed(1, 12)], report_of(48)) is None


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (9.94, "9.9 s"),
        (119.4, "119 s"),
        (125, "2 min 5 s"),
        (3_599.9, "60 min 0 s"),
        (3_660, "1 h 1 min"),
        (90_000, "1 d 1 h"),
    ],
)
def test_spans_of_time_have_their_two_largest_units(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_share_is_never_rounded_to_nothing_or_all() -> None:
    shares = [share(part, 10_000) for part in (0, 1, 1_234, 9_999, 10_000)]
    assert shares == ["0%", "under 0.1%", "12.3%", "over 99.9%", "100%"]
    assert share(0, 0) == "0%"
    assert [number(value) for value in (0.037, 4.23, 1234.4)] == ["0.037", "4.2", "1,234"]
