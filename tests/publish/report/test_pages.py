"""The pages in a real browser: no barriers, nothing blocked, no scrolling sideways."""

from pathlib import Path

import pytest

from captioner.jobs.publish.report.write import write_table_report
from tests.support.commands import captioner
from tests.support.pages import VIEWS, Pages, barriers, fits
from tests.support.photographs import write_photographs
from tests.support.rows import decide, row, write_rows


@pytest.fixture(scope="module")
def table_page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the URL of the page about a table with everything that a page can have."""
    folder = tmp_path_factory.mktemp("report")
    photos = [str(path) for path in sorted(write_photographs(folder / "photos", 40).iterdir())]
    rows = [row(uri, confidence=n / 40, needs_review=n < 20) for n, uri in enumerate(photos)]
    failed = {"caption": None, "confidence": None, "error": "No such file: " + "x" * 200}
    rows += [row(f"/{'long' * 30}/{n}.jpg", status="not_found", **failed) for n in range(3)]
    rows += [row("https://host.test/missing.jpg", confidence=0.99)]
    out = write_rows(folder / "out", rows, review={"min_confidence": 0.5})
    for number, decision in enumerate(("accepted", "edited", "rejected", "decorative")):
        decide(out, photos[-1 - number], decision, ["A dog.", "A cat.", None, ""][number])
    return Path(str(write_table_report(folder / "out"))).as_uri()


@pytest.fixture(scope="module")
def run_page(
    tmp_path_factory: pytest.TempPathFactory, scheduler: str, calibrated_checkpoint: Path
) -> str:
    """Return the URL of the page of a run with failures and a threshold."""
    folder = tmp_path_factory.mktemp("run")
    photos = write_photographs(folder / "photos", 30)
    (photos / "empty.jpg").touch()
    (photos / "notes.docx").touch()
    model = ("--checkpoint", calibrated_checkpoint, "--min-confidence", 0.5, "--beam-size", 2)
    workers = ("--scheduler", scheduler, "--partition-size", 5)
    done = captioner("run", photos, "--out", folder / "out", *model, *workers)
    assert done.returncode == 0, done.stderr
    (path,) = folder.glob("out/runs/*/report.html")
    return path.as_uri()


@pytest.mark.parametrize(("width", "scheme"), VIEWS)
def test_the_page_about_a_table_has_no_barriers(
    pages: Pages, table_page: str, width: int, scheme: str
) -> None:
    page = pages.open(table_page, width, scheme, offline=True)
    assert barriers(page) == []
    assert fits(page)
    for summary in page.locator("summary").all():
        summary.click()
    assert barriers(page) == []
    assert fits(page)


@pytest.mark.parametrize(("width", "scheme"), VIEWS)
def test_the_page_about_a_run_has_no_barriers(
    pages: Pages, run_page: str, width: int, scheme: str
) -> None:
    page = pages.open(run_page, width, scheme, offline=True)
    assert barriers(page) == []
    assert fits(page)


def test_pictures_and_bars_are_drawn(pages: Pages, table_page: str) -> None:
    page = pages.open(table_page, offline=True)
    assert page.locator(".gallery img").count() == 23
    assert page.evaluate("[...document.images].every(image => image.naturalWidth > 0)")
    heights = page.locator(".drawing rect").evaluate_all(
        "bars => bars.map(bar => bar.getBoundingClientRect().height)"
    )
    assert min(heights) > 0 and page.locator(".drawing .mark").count() == 1


def test_the_keyboard_reaches_every_number(pages: Pages, table_page: str) -> None:
    page = pages.open(table_page, offline=True)
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.locator("details").first.get_attribute("open") is not None
    assert page.get_by_role("rowheader", name="0.95 to 1.00").is_visible()
