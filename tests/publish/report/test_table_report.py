"""The page about a whole table: what people decided, hostile texts, its size, its command."""

import io
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from captioner.jobs.cli.main import main
from captioner.jobs.errors import UsageError
from captioner.jobs.publish.report.write import write_table_report
from captioner.jobs.storage.backends.paths import out_path
from captioner.jobs.table.layout import OutFolder
from captioner.schemas.caption_table import Status
from captioner.schemas.job_report import JobReport
from captioner.schemas.review import Decision
from tests.support.html import Html
from tests.support.photographs import photograph, write_photographs
from tests.support.rows import CAPTIONER, decide, row, write_rows
from tests.support.servers import S3Server
from tests.support.stores import keys, put_rows

HOSTILE = "<script>alert('1')</script> \"><img src=x onerror=alert(1)> {{ 7 * 7 }} &amp; \u202e"


def page_of(out: OutFolder) -> Html:
    return Html(Path(str(write_table_report(str(out.root)))).read_text(encoding="utf-8"))


def test_the_texts_of_people_win_and_their_decisions_are_counted(tmp_path: Path) -> None:
    photos = [str(path) for path in sorted(write_photographs(tmp_path / "photos", 6).iterdir())]
    rows = [row(uri, needs_review=True, caption=f"Caption {n}.") for n, uri in enumerate(photos)]
    review = {"min_confidence": 0.6}
    out = write_rows(tmp_path / "out", rows, review=review)
    decide(out, photos[0], Decision.ACCEPTED, "Caption 0.")
    decide(out, photos[1], Decision.EDITED, "A dog.")
    decide(out, photos[2], Decision.REJECTED)
    decide(out, photos[3], Decision.DECORATIVE, "")
    decide(out, photos[4], Decision.EDITED, "An old dog.", image_sha256="other bytes")
    text = page_of(out).text
    assert "6 of 6 images captioned" in text and "threshold of 0.6" in text
    assert "To review 2 33.3% of captions" in text and "Decided by people 5" in text
    assert "Edited 2 40%" in text and "Accepted as written 1 20%" in text
    assert "Images that have changed since, and wait for another look: 1." in text
    assert "A dog. The captioner wrote: Caption 1. Confidence 0.50 edited" in text
    assert "The captioner wrote: Caption 2. Confidence 0.50 rejected" in text
    assert "Caption 0. Confidence 0.50 accepted as written" in text
    assert "edited; the image has changed since" in text
    assert "Caption 5. Confidence 0.50 to review" in text
    assert f"By {CAPTIONER} 6 images" in text and "Files 1 (" in text


@pytest.mark.parametrize("column", ["status", "image_uri"])
def test_a_file_that_is_not_of_the_table_is_refused(tmp_path: Path, column: str) -> None:
    write_rows(tmp_path, [row("/1.jpg")])
    pq.write_table(pa.table({column: [1.5]}), tmp_path / "captions" / "other.parquet")
    with pytest.raises(UsageError, match=r"other\.parquet is not a file of a caption table"):
        write_table_report(tmp_path)


def test_the_surest_and_the_least_sure_captions_of_all_files_are_shown(tmp_path: Path) -> None:
    for part in range(3):
        rows = [row(f"/{part}/{n:03d}.jpg", confidence=(3 * n + part) / 300) for n in range(100)]
        out = write_rows(tmp_path, rows, str(part))
    text = page_of(out).text
    least, rest = text.partition("Chosen at random")[0], text.partition("Surest")[2]
    for number in range(8):
        assert f"A picture of {number // 3:03d}." in least
        assert f"A picture of {(299 - number) // 3:03d}." in rest
    assert "Half of the captions have a confidence of 0.50 or more." in text
    assert text.count("No picture: ") == 24


def test_no_image_is_shown_twice(tmp_path: Path) -> None:
    text = page_of(write_rows(tmp_path, [row(f"/{n:03d}.jpg") for n in range(100)])).text
    names = re.findall(r"\d{3}\.jpg", text)
    assert len(names) == len(set(names)) == 16


def test_failures_have_examples_and_a_remedy(tmp_path: Path) -> None:
    failed = {"caption": None, "confidence": None, "log_prob": None, "error": "it broke"}
    kinds = [status for status in Status if status != Status.OK]
    rows = [row(f"/{k}-{n}.jpg", status=k, **failed) for k in kinds for n in range(9)]
    text = page_of(write_rows(tmp_path, [row("/fine.jpg"), *rows])).text
    assert text.count("it broke") == 5 * len(kinds)
    for kind in (
        "not_found",
        "denied",
        "timeout",
        "fetch_failed",
        "refused",
        "unsupported",
        "too_large",
        "rejected",
        "crashed",
    ):
        assert f"--retry-failed {kind}" in text
    assert "Damaged, or no image: 9 (9%)" in text


def test_hostile_texts_are_shown_and_do_nothing(tmp_path: Path) -> None:
    out = write_rows(
        tmp_path,
        [
            row(f"/photos/{HOSTILE}.jpg", caption=HOSTILE, captioner=HOSTILE),
            row("/photos/b.jpg", caption="Plain."),
            row(f"{HOSTILE}c.jpg", status=Status.TIMEOUT, error=HOSTILE, caption=None),
        ],
    )
    decide(out, "/photos/b.jpg", Decision.EDITED, HOSTILE)
    page = page_of(out)
    assert page.text.count(HOSTILE) >= 4
    assert (page.tags["script"], page.tags["img"]) == (0, 0)
    assert not [name for name in page.attributes if name.startswith("on")]


def test_signatures_and_passwords_are_not_shown(tmp_path: Path) -> None:
    signed = "https://host.test/a b.jpg?X-Amz-Signature=hush-1&x=y"
    inside = "tar://a.jpg::https://me:hush-2@host.test/t.tar?sig=hush-3"
    error = f"403, message='Forbidden', url='{signed}' and https://host.test/x?token=hush-4"
    out = write_rows(
        tmp_path,
        [
            row(signed),
            row("https://host.test/p.parquet?sig=hush-5#row=17"),
            row(inside, status=Status.DENIED, error=error, caption=None),
        ],
    )
    text = write_table_report(tmp_path).read_text()
    assert "hush" not in text
    page = Html(text).text
    assert "tar://a.jpg::https://host.test/t.tar" in page and "p.parquet#row=17" in page
    assert "403, message='Forbidden', url='https://host.test/a b.jpg'" in page
    assert str(out.captions) in page


def test_a_page_with_the_noisiest_photographs_is_under_5_mb(tmp_path: Path) -> None:
    uris = []
    for number in range(30):
        path = tmp_path / f"{number:02d}.jpg"
        noise = np.random.default_rng(number).integers(0, 255, (900, 1200, 3), dtype=np.uint8)
        Image.fromarray(noise).save(path, "JPEG", quality=90)
        uris.append(str(path))
    write_rows(tmp_path, [row(uri, confidence=n / 30) for n, uri in enumerate(uris)])
    path = write_table_report(tmp_path)
    page = Html(path.read_text())
    assert page.tags["img"] == 24
    assert path.stat().st_size < 5_000_000


def test_long_texts_are_cut(tmp_path: Path) -> None:
    long = {"error": "e" * 1_000_000, "status": Status.FETCH_FAILED, "caption": None}
    rows = [row(f"/{n}/{'d' * 3_000}/{n}.jpg", **long) for n in range(5)]
    out = write_rows(tmp_path, rows)
    assert write_table_report(tmp_path).stat().st_size < 100_000
    assert "/3.jpg" in page_of(out).text


def test_the_runs_of_a_table_are_listed(tmp_path: Path) -> None:
    out = write_rows(tmp_path, [row("/a.jpg")])
    now = datetime(2026, 3, 1, 12, tzinfo=UTC)
    for number, code in enumerate((0, 75, 143)):
        run_id = f"2026030{number + 1}T120000-000000-0000"
        ended = now + timedelta(days=number)
        report = JobReport(run_id, "s", "t", ended, ended, code, images=5, statuses={"ok": 5})
        (tmp_path / "runs" / run_id).mkdir(parents=True)
        (tmp_path / "runs" / run_id / "report.json").write_text(report.to_json())
    (tmp_path / "runs" / "20260304T120000-000000-0000").mkdir()  # of a killed run
    (tmp_path / "runs" / "20260304T120000-000000-0001").mkdir()
    (tmp_path / "runs" / "20260304T120000-000000-0001" / "report.json").write_text("{}")
    text = page_of(out).text
    runs = text[text.rindex("Ended Result") :]
    stopped = runs.index("3 March 2026, 12:00 UTC Stopped by SIGTERM 5 0")
    assert stopped < runs.index("2 March 2026") < runs.index("1 March 2026, 12:00 UTC Done 5 0")


def test_an_empty_table_has_a_report(tmp_path: Path) -> None:
    assert "0 of 0 images captioned" in page_of(write_rows(tmp_path, [])).text


def test_the_command_writes_a_file_and_opens_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = write_rows(tmp_path / "out", [row("/a.jpg")])
    opened: list[str] = []
    monkeypatch.setenv("BROWSER", "any")
    monkeypatch.setattr("webbrowser.open", opened.append)
    assert main(["report", str(out.root)]) == 0
    assert capsys.readouterr().out == f"{tmp_path}/out/report.html\n"
    assert main(["report", str(out.root), "--to", str(tmp_path / "a b.html"), "--open"]) == 0
    assert opened == [f"file://{tmp_path}/a%20b.html"]
    assert Html((tmp_path / "a b.html").read_text()).tags["h1"] == 1
    assert main(["report", str(tmp_path)]) == 2
    assert main(["report", str(out.root), "--to", str(tmp_path / "missing" / "a.html")]) == 2
    errors = capsys.readouterr().err
    assert "holds no caption table" in errors and f"cannot write {tmp_path}/missing" in errors
    assert not list(tmp_path.rglob("*.unfinished"))


def test_a_report_about_a_table_on_a_store_is_written_there(
    url: str, tmp_path: Path, store: S3Server
) -> None:
    bucket = store.bucket({"a.jpg": photograph(1)})
    put_rows(OutFolder(out_path(url)).captions / "a.parquet", f"{bucket}/a.jpg")
    path = write_table_report(url)
    assert str(path) == f"{url}/report.html" and "report.html" in keys(url)
    page = Html(path.read_text())
    assert "1 of 1 images captioned" in page.text and page.tags["img"] == 1
    assert main(["report", url, "--open", "--to", str(tmp_path)]) == 2


def test_an_image_without_pixels_left_has_a_placeholder(tmp_path: Path) -> None:
    file = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(file, "PNG")
    (tmp_path / "a.png").write_bytes(file.getvalue())
    text = page_of(write_rows(tmp_path, [row(f"{tmp_path}/a.png")])).text
    assert "No picture: 20000 x 20000 pixels" in text


def test_a_file_that_is_no_table_is_named(tmp_path: Path) -> None:
    write_rows(tmp_path, [row("/a.jpg")])
    (tmp_path / "captions" / "b.parquet").write_text("no Parquet")
    with pytest.raises(UsageError, match=r"b\.parquet is not a file of a caption table"):
        write_table_report(tmp_path)
