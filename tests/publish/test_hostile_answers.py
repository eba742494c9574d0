"""Hostile texts in a table, however they got there, do nothing to those who read it."""

import csv
import json
from pathlib import Path
from xml.etree import ElementTree

import html5lib
import pytest

from captioner.jobs.cli.main import main
from captioner.jobs.publish.report.write import write_table_report
from captioner.jobs.table.layout import OutFolder
from captioner.schemas.caption_table import CaptionRow, Status
from tests.support.exports import exported
from tests.support.hostile import HOSTILE
from tests.support.html import Html
from tests.support.pages import Pages
from tests.support.photographs import photograph
from tests.support.reviewing import reviewing
from tests.support.rows import row, write_rows

TEXTS = [text[:9_999].encode(errors="backslashreplace").decode() for text in HOSTILE if text]
HARMFUL = {chr(n) for n in (*range(9), *range(10, 32), *range(127, 160), *range(0x202A, 0x202F))}


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Return a folder with a page and its pictures, one for each of TEXTS."""
    folder = tmp_path / "site"
    folder.mkdir()
    names = [f"{number:02d}.jpg" for number in range(len(TEXTS))]
    for number, name in enumerate(names):
        (folder / name).write_bytes(photograph(number))
    (folder / "index.html").write_text("".join(f'<img src="{name}">' for name in names))
    return folder


@pytest.fixture
def out(tmp_path: Path, site: Path) -> OutFolder:
    """Return a table with each of TEXTS as a caption and its alternative, and as an error."""
    pairs = (pair for number, text in enumerate(TEXTS) for pair in _rows(site, number, text))
    return write_rows(tmp_path / "out", list(pairs))


def _rows(site: Path, number: int, text: str) -> tuple[CaptionRow, CaptionRow]:
    nothing = dict.fromkeys(("caption", "confidence", "log_prob"))
    others = [{"caption": text, "log_prob": -5.0}]
    return (
        row(f"{site}/{number:02d}.jpg", caption=text, alternatives=others),
        row(f"/no/{number:02d}.jpg", status=Status.REJECTED, error=text, **nothing),
    )


def test_terminals_show_them(
    out: OutFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["status", str(out.root), "--failed"]) == 0
    failed = capsys.readouterr().out
    assert r"\x1b[31mA red dog\x1b[0m runs." in failed and r"\u202e" in failed
    assert len(failed.split("\n")) == len(TEXTS) + 1
    assert main(["search", "dog", str(out.root), "--limit", "99", "--quiet"]) == 0
    found = capsys.readouterr().out
    assert r"\x1b[31mA red dog\x1b[0m runs." in found
    assert not HARMFUL & set((failed + found).replace("\n", ""))
    assert main(["search", "a\x1b[2Jb", str(tmp_path / "none\x1b[2J")]) != 0
    assert not HARMFUL & set(capsys.readouterr().err.replace("\n", ""))


def test_spreadsheets_show_them(out: OutFolder, tmp_path: Path) -> None:
    path = tmp_path / "texts.csv"
    exported(out, "csv", to=path, columns=["text", "alternatives", "image_uri"])
    assert main(["review", str(out.root), "--csv", str(tmp_path / "sheet.csv")]) == 0
    for file in (path, tmp_path / "sheet.csv"):
        cells = [cell for line in csv.reader(file.open(newline="")) for cell in line]
        assert not [cell for cell in cells if cell[:1] and cell[0] in "=+-@\t\r"]


def test_programs_read_them_as_they_are(out: OutFolder, site: Path, tmp_path: Path) -> None:
    exported(out, "jsonl", to=tmp_path / "texts.jsonl")
    lines = (tmp_path / "texts.jsonl").read_text(encoding="utf-8").split("\n")
    assert [*map(json.loads, filter(None, lines))]
    exported(out, "xmp")
    sidecars = list(site.glob("*.xmp"))
    assert len(sidecars) > len(TEXTS) / 2
    assert all(ElementTree.parse(path).getroot() is not None for path in sidecars)


def test_they_stay_in_the_attribute_of_an_image(out: OutFolder, site: Path) -> None:
    exported(out, "html", to=site)
    page = html5lib.parse((site / "index.html").read_text(), namespaceHTMLElements=False)
    tags = [element for element in page.iter() if isinstance(element.tag, str)]
    assert {element.tag for element in tags} == {"html", "head", "body", "img"}
    assert {name for element in tags for name in element.attrib} == {"src", "alt"}
    assert len([tag for tag in tags if "alert(1)" in tag.attrib.get("alt", "")]) >= 5


@pytest.mark.slow
def test_pages_show_them_as_text(out: OutFolder, tmp_path: Path, pages: Pages) -> None:
    report, found = tmp_path / "report.html", tmp_path / "found.html"
    write_table_report(str(out.root), report)
    assert main(["search", "alert", str(out.root), "--page", str(found), "--quiet"]) == 0
    for path in (report, found):
        html = Html(path.read_text(encoding="utf-8"))
        assert "<script>alert(1)</script>" in html.text and html.tags["script"] == 0
        assert not [name for name in html.attributes if name.startswith("on")]
        page = pages.open(path.as_uri())
        assert page.locator("script, svg[onload]").count() == 0
    with reviewing(out) as served:
        page = pages.open(served.url)
        for _ in range(8):
            page.keyboard.press("ArrowRight")
        assert page.title().endswith("Review")
        assert page.locator("#caption script, #caption img, #choices img").count() == 0
