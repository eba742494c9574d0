"""The page of what was found, in a real browser."""

import threading
from pathlib import Path

import pytest

from captioner.jobs.cli.main import main
from captioner.jobs.publish import pictures
from captioner.jobs.publish.find.page import Tile, write_page
from captioner.jobs.publish.find.search import Found
from tests.support.pages import VIEWS, Pages, barriers, fits
from tests.support.photographs import write_photographs
from tests.support.rows import decide, row, write_rows

EVIL = '<script>document.title = "hacked"</script> "\'&{{ 7 * 7 }}'


@pytest.fixture
def found(tmp_path: Path) -> list[Found]:
    photos = write_photographs(tmp_path / "a <b> & c", 3)
    uris = [*sorted(map(str, photos.iterdir())), str(tmp_path / "missing.jpg"), f"/{EVIL}.jpg"]
    uris += ["https://localhost:1/1.jpg?a=1&b=2", "tar://x/1.jpg::/missing.tar", "/1.parquet#row=1"]
    texts = ["A dog on a beach.", None, EVIL, "", "A word " + "w" * 300, "x", "y", "z"]
    return [
        Found(uri, text, 0.5 if text else None, not text, "accepted" if text else None, 1.0)
        for uri, text in zip(uris, texts, strict=True)
    ]


@pytest.mark.parametrize(("width", "scheme"), VIEWS)
def test_the_page_has_no_barriers(
    pages: Pages, found: list[Found], tmp_path: Path, width: int, scheme: str
) -> None:
    path = tmp_path / "found.html"
    write_page(path, f"dog {EVIL}", "The best 8 of photos", found)
    page = pages.open(path.as_uri(), width, scheme)
    assert page.title() == f"dog {EVIL}"
    assert page.locator("li").count() == len(found)
    assert page.locator("li img").count() == 3
    assert page.evaluate("[...document.images].every(i => i.naturalWidth > 0)")
    assert page.locator("li .text").nth(2).inner_text() == EVIL
    assert page.evaluate("getComputedStyle(document.querySelector('.found')).display") == "grid"
    assert "a=1" not in page.content() and "unsafe-inline" not in page.content()
    assert barriers(page) == []
    assert fits(page)


def test_a_source_that_hangs_costs_the_pictures_alone(
    found: list[Found], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pictures, "fetch_image", lambda *_: threading.Event().wait())
    monkeypatch.setattr(pictures, "SECONDS", 0.1)
    monkeypatch.setattr(pictures, "SECONDS_EACH", 0.0)
    write_page(tmp_path / "found.html", "dog", "The best 8 of photos", found)
    text = (tmp_path / "found.html").read_text(encoding="utf-8")
    assert text.count("No picture: its source did not answer in time") == len(found)
    assert "A dog on a beach." in text


@pytest.mark.parametrize(
    ("uri", "address", "name"),
    [
        ("/photos/a b.jpg", "file:///photos/a%20b.jpg", "a b.jpg"),
        ("https://h/1.jpg?sig=x", "https://h/1.jpg", "1.jpg"),
        ("/1.parquet#row=1", None, "/1.parquet#row=1"),
        ("https://h/1.parquet?sig=x#row=1", None, "https://h/1.parquet#row=1"),
        ("tar://a/1.jpg::/t.tar", None, "tar://a/1.jpg::/t.tar"),
        ("s3://bucket/1.jpg", None, "s3://bucket/1.jpg"),
    ],
)
def test_an_image_has_a_link_if_a_browser_can_open_it(
    uri: str, address: str | None, name: str
) -> None:
    tile = Tile(Found(uri, "A dog.", 0.5, False, None, 1.0), "", "")
    assert (tile.address, tile.name) == (address, name)


def test_search_writes_the_page_and_opens_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = write_photographs(tmp_path / "photos", 2)
    out = write_rows(tmp_path / "out", [row(str(p), caption="A dog.") for p in photos.iterdir()])
    decide(out, str(photos / "001.jpg"), "edited", "A wolf.")
    opened: list[str] = []
    monkeypatch.setenv("BROWSER", "any")
    monkeypatch.setattr("webbrowser.open", opened.append)
    assert main(["search", "wolf dog*", str(out.root), "--open", "--where", "width > 1"]) == 0
    (address,) = opened
    page = Path(address.removeprefix("file://"))
    assert page.read_text().count("data:image/jpeg") == 2
    assert page.parent == tmp_path / "out" and page.stat().st_mode & 0o777 == 0o600
    page.chmod(0o644)
    assert main(["search", "wolf", str(out.root), "--open"]) == 0
    assert opened == [address, address]
    assert page.read_text().count("data:image/jpeg") == 1 and page.stat().st_mode & 0o777 == 0o600
    assert main(["search", "wolf", str(out.root), "--page", str(tmp_path / "p.html")]) == 0
    printed = capsys.readouterr()
    assert "A wolf." in printed.out and "these have some" in printed.err
    assert (tmp_path / "p.html").read_text().count("<li>") == 1
    assert main(["search", "dog", str(out.root), "--page", str(tmp_path / "no" / "p.html")]) == 2
