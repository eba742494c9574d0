"""What the progress of a run says."""

import io
import json
import sys
from collections.abc import Iterator
from dataclasses import replace

import pytest

from captioner.jobs.execution.record.at_work import Straggler
from captioner.jobs.execution.record.progress import LISTING, Moment, Pace, showing, text_of


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def moments(*images: int, seconds: float = 30.0) -> Iterator[Moment]:
    """Moments at even distances."""
    return (Moment(n * seconds, True, count) for n, count in enumerate(images))


def text(pace: Pace, moment: Moment, total: int) -> str:
    return text_of(pace.facts(replace(moment, total=total)))


def last_text(total: int, moments: Iterator[Moment]) -> str:
    pace = Pace()
    *_, last = (text(pace, moment, total) for moment in moments)
    return last


def test_the_speed_is_that_of_the_last_minute() -> None:
    found = last_text(2000, moments(0, 900, 960, 1020, seconds=30))
    assert found == "1,020 of 2,000 images, 2.0 images/s, 08:10 left"


def test_before_the_first_image_there_is_no_speed() -> None:
    assert text(Pace(), Moment(3.0), 5) == "0 of 5 images, starting"
    assert text(Pace(), Moment(3.0, True), 5) == "0 of 5 images"


def test_before_the_plan_is_made_the_images_found_are_counted() -> None:
    listing = Moment(3.0, listed=12_000, phase=LISTING)
    assert text(Pace(), listing, 0) == "listing, 12,000 images found so far"


def test_images_of_a_task_that_failed_leave_no_negative_speed() -> None:
    assert last_text(100, moments(64, 32)) == "32 of 100 images"


def test_failures_and_the_limiting_step_of_the_last_minute_are_named() -> None:
    pace = Pace()
    slow = Moment(100.0, True, 500, 0, {"fetch": 90.0, "encode": 5.0}, 30.0)
    later = {"fetch": 90.1, "encode": 50.0}
    assert text(pace, Moment(0.0, True), 1000) == "0 of 1,000 images"
    assert text(pace, slow, 1000) == "500 of 1,000 images"
    found = text(pace, Moment(150.0, True, 600, 2, later, 76.0), 1000)
    assert found == "600 of 1,000 images, 2.0 images/s, 03:20 left, 2 failed, limit: encode"


def test_what_a_run_waits_for_is_named() -> None:
    waiting = [Straggler("000003", 184, "http://slow.example/1.jpg"), Straggler("000004", 70)]
    moment = replace(Moment(30.0, True, 4), waiting=waiting)
    assert text(Pace(), moment, 5) == (
        "4 of 5 images, waiting 03:04 for http://slow.example/1.jpg (part 000003) and 1 more"
    )
    moment = replace(moment, waiting=waiting[1:])
    assert text(Pace(), moment, 5) == "4 of 5 images, waiting 01:10 for part 000004"
    json.dumps(Pace().facts(replace(moment, total=5)))


def test_what_is_done_needs_no_time() -> None:
    assert last_text(60, moments(0, 60)) == "60 of 60 images, 2.0 images/s"


@pytest.mark.parametrize(
    ("stderr", "quiet", "shows"),
    [
        (Terminal(), False, "| 7 of 7 images"),
        (Terminal(), True, ""),
        (io.StringIO(), False, ""),  # in less than a minute
    ],
)
def test_a_bar_is_for_terminals(
    monkeypatch: pytest.MonkeyPatch, stderr: io.StringIO, quiet: bool, shows: str
) -> None:
    monkeypatch.setattr(sys, "stderr", stderr)
    with showing(lambda: Moment(0.0, True, 7, total=7), quiet=quiet):
        pass
    assert shows in stderr.getvalue()
    assert bool(stderr.getvalue()) == bool(shows)
