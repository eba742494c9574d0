"""The page of the review in a real Chromium: keys, mouse, screen reader, and no barriers."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from captioner.jobs.table.layout import OutFolder
from captioner.jobs.table.reviews import as_reviews, decisions
from captioner.schemas.caption_table import CaptionRow
from tests.support.pages import VIEWS, Pages, barriers, fits
from tests.support.photographs import photograph
from tests.support.reviewing import Reviewing, reviewing
from tests.support.rows import decide, row, write_rows

if TYPE_CHECKING:
    from playwright.sync_api import Page, Route

pytestmark = pytest.mark.slow
HOSTILE = "<img src=x onerror=alert(1)><script>document.title='owned'</script>"


def rows(folder: Path) -> list[CaptionRow]:
    """Return ten rows in the order of their review: a, b, ... j; a has all that a page shows."""
    alternatives = [{"caption": f"Text {n}.", "log_prob": -5.0} for n in (1, 2)]
    common = {"alternatives": alternatives, "caption": "A dog on a beach."}
    probabilities = [-0.1, -0.1, -3.0, -0.1, -0.1, -0.1]
    return [
        row(
            f"{folder}/{name}.jpg",
            confidence=(n + 1) / 20,
            needs_review=True,
            token_log_probs=probabilities,
            **common,
        )
        for n, name in enumerate("abcdefghij")
    ]


@pytest.fixture
def out(tmp_path: Path) -> OutFolder:
    for number, name in enumerate("abcdefghij"):
        (tmp_path / f"{name}.jpg").write_bytes(photograph(number))
    return write_rows(tmp_path / "out", rows(tmp_path))


@pytest.fixture
def served(out: OutFolder) -> Iterator[Reviewing]:
    with reviewing(out) as served:
        yield served


@pytest.fixture
def page(served: Reviewing, pages: Pages) -> "Page":
    page = pages.open(served.url)
    shows(page, "a.jpg")
    return page


def shows(page: "Page", name: str) -> None:
    """Wait until the page shows an image and its picture."""
    page.get_by_role("img", name=f"Picture {name}").wait_for()


def saved(out: OutFolder) -> dict[str, tuple[str, str | None]]:
    """Return the decisions in force, by the image's name."""
    found = as_reviews(decisions(out).reviews)
    return {Path(each.image_uri).stem: (each.decision, each.text) for each in found}


def test_every_action_has_a_key(page: "Page", out: OutFolder) -> None:
    steps = [("a", "b"), ("1", "c"), ("n", "c"), ("n", "c"), ("Enter", "d"), ("r", "e")]
    for key, name in [*steps, ("d", "f"), ("s", "g")]:
        page.keyboard.press(key)
        shows(page, f"{name}.jpg")
    page.keyboard.press("e")
    page.keyboard.type("  A cat.  ")
    page.keyboard.press("Enter")
    shows(page, "h.jpg")
    assert saved(out) == {
        "a": ("accepted", "A dog on a beach."),
        "b": ("edited", "Text 1."),
        "c": ("edited", "Text 2."),
        "d": ("rejected", None),
        "e": ("decorative", ""),
        "g": ("edited", "A cat."),
    }
    for name in "gfe":
        page.keyboard.press("u")
        shows(page, f"{name}.jpg")
    assert set(saved(out)) == set("abcd")


def test_everything_works_by_touch(pages: Pages, served: Reviewing, out: OutFolder) -> None:
    page = pages.open(served.url, 390, has_touch=True, is_mobile=True)
    shows(page, "a.jpg")
    for button, name in [("Text 2.", "b"), ("Accept", "c"), ("Decorative", "d"), ("Undo", "c")]:
        page.get_by_role("button", name=button).tap()
        shows(page, f"{name}.jpg")
    page.get_by_role("button", name="Edit").tap()
    page.get_by_label("Text", exact=True).fill("A cat.")
    page.get_by_role("button", name="Save").tap()
    shows(page, "d.jpg")
    assert {name: text for name, (_, text) in saved(out).items()} == {
        "a": "Text 2.",
        "b": "A dog on a beach.",
        "c": "A cat.",
    }


def test_a_held_key_decides_once(page: "Page", out: OutFolder) -> None:
    for _ in range(5):
        page.keyboard.down("a")
    shows(page, "b.jpg")
    page.keyboard.up("a")
    page.keyboard.press("r")
    shows(page, "c.jpg")
    assert set(saved(out)) == {"a", "b"}


def test_keys_can_be_switched_off(page: "Page", out: OutFolder) -> None:
    page.keyboard.press("?")
    page.get_by_label("Use these keys").uncheck()
    page.get_by_role("button", name="Close").click()
    page.keyboard.press("a")
    page.reload()
    shows(page, "a.jpg")
    page.keyboard.press("r")
    page.get_by_role("button", name="Accept").click()
    shows(page, "b.jpg")
    assert saved(out) == {"a": ("accepted", "A dog on a beach.")}


def test_keys_with_a_modifier_belong_to_the_browser(page: "Page", out: OutFolder) -> None:
    for key in ("Control+a", "Alt+r", "Meta+d"):
        page.keyboard.press(key)
    page.keyboard.press("s")
    shows(page, "b.jpg")
    assert saved(out) == {}


def test_the_editor_counts_and_saves_only_what_fits(page: "Page", out: OutFolder) -> None:
    page.keyboard.press("e")
    text, count = page.get_by_label("Text", exact=True), page.locator("#count")
    assert (text.input_value(), count.inner_text()) == ("A dog on a beach.", "17 of 125 characters")
    text.fill("x" * 130)
    assert count.inner_text() == "130 of 125 characters: 5 too many"
    page.keyboard.press("Enter")
    text.fill("e\u0301" * 125)
    assert count.inner_text() == "125 of 125 characters"
    text.fill("  ")
    page.keyboard.press("Enter")
    assert "decorative" in count.inner_text()
    assert saved(out) == {}
    page.keyboard.press("Escape")
    assert page.locator("#caption").inner_text().startswith("A dog")
    page.keyboard.press("r")
    shows(page, "b.jpg")
    assert saved(out) == {"a": ("rejected", None)}


def test_a_screen_reader_hears_each_step(page: "Page") -> None:
    heard = page.get_by_role("status")
    assert "a.jpg: A dog on a beach. 5% confidence, almost certainly wrong" in heard.inner_text()
    page.keyboard.press("a")
    shows(page, "b.jpg")
    assert heard.inner_text().startswith("Accepted. b.jpg: A dog on a beach. 10% confidence")
    assert "on (doubtful) a beach" in page.locator("#caption").text_content()


def test_words_in_doubt_are_marked_and_named_with_their_confidence(
    pages: Pages, tmp_path: Path
) -> None:
    words = [{"word": w, "confidence": p} for w, p in [("dog", 0.12), ("b", 0.97), ("beach", 0.4)]]
    caption = "A dog on a <b>beach."
    alternatives = [{"caption": "A cat.", "log_prob": -5.0}]
    out = write_rows(
        tmp_path,
        [row("/a.jpg", caption=caption, word_confidence=words, alternatives=alternatives)],
    )
    with reviewing(out) as served:
        page = pages.open(served.url)
        page.get_by_text("No picture").wait_for()
        marks, doubts = page.locator("#caption mark"), page.locator("#doubts")
        assert page.locator("#caption").text_content() == (
            "A dog (doubtful) on a <b>beach (doubtful)."
        )
        assert [each.get_attribute("title") for each in marks.all()] == [
            "12%\N{NO-BREAK SPACE}sure",
            "40%\N{NO-BREAK SPACE}sure",
        ]
        named = doubts.inner_text().replace("\N{NO-BREAK SPACE}", " ")
        assert named == "Doubtful: dog (12% sure), beach (40% sure)"
        assert barriers(page) == []
        page.keyboard.press("n")
        assert marks.count() == 0 and doubts.is_hidden()


def test_the_focus_is_never_lost(page: "Page") -> None:
    focused = "document.activeElement.id || document.activeElement.dataset.act"
    for key, name, where in [("1", "b", "caption"), ("e", "b", "text"), ("Escape", "b", "caption")]:
        page.keyboard.press(key)
        shows(page, f"{name}.jpg")
        assert page.evaluate(focused) == where
    page.get_by_role("button", name="Reject").click()
    shows(page, "c.jpg")
    assert page.evaluate(focused) == "reject"
    page.get_by_role("button", name="Text 1.").click()
    shows(page, "d.jpg")
    assert page.evaluate(focused) == "caption"


def test_hostile_names_and_texts_are_only_text(pages: Pages, tmp_path: Path) -> None:
    alternatives = [{"caption": HOSTILE, "log_prob": -1.0}]
    uri = f"{tmp_path}/{HOSTILE.replace('/', '')}/{HOSTILE.replace('/', '')}"
    names = {"caption": f"A {HOSTILE}", "alternatives": alternatives}
    out = write_rows(tmp_path / "out", [row(uri, **names)])
    decide(out, uri, "edited", HOSTILE, reviewer=HOSTILE, image_sha256="former")
    with reviewing(out, HOSTILE) as served:
        page = pages.open(served.url)
        page.get_by_text("No picture: No such file or directory").wait_for()
        assert page.locator("#caption").inner_text() == HOSTILE
        assert f"A {HOSTILE}" in page.locator("#hint").inner_text()
        assert HOSTILE in page.locator("#former").inner_text()
        assert page.locator("script, img").count() == 1  # the page's own
        assert page.title() == "1 left \N{EN DASH} Review"


def test_nothing_moves_while_a_picture_loads(pages: Pages, served: Reviewing) -> None:
    places = "['frame', 'name', 'caption', 'actions'].map(id => document.getElementById(id)" \
             ".getBoundingClientRect().toJSON())"  # fmt: skip

    held: list[Route] = []
    for width, _ in VIEWS[::2]:
        page = pages.open("about:blank", width)
        held.clear()
        page.route("**/pictures/*", lambda route: held.append(route))
        page.goto(served.url, wait_until="commit")
        page.get_by_text("Loading the picture").wait_for()
        before = page.evaluate(places)
        for route in held:
            route.continue_()
        page.get_by_role("img").wait_for()
        assert page.evaluate(places) == before


def test_filters_change_what_is_shown(page: "Page") -> None:
    page.keyboard.press("f")
    page.get_by_label("from").fill("20")
    page.get_by_label("to", exact=True).fill("30")
    page.get_by_role("button", name="Apply").click()
    shows(page, "d.jpg")
    assert page.locator("#progress").inner_text() == "3 left · 0 saved"
    page.keyboard.press("f")
    page.get_by_label("Text contains").fill("no such text")
    page.keyboard.press("Enter")
    page.locator("#end").get_by_text("No more pictures match").wait_for()
    page.keyboard.press("f")
    page.get_by_role("button", name="Reset").click()
    shows(page, "a.jpg")


def test_the_end_says_how_many_were_saved_and_can_be_undone(pages: Pages, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(photograph(0))
    out = write_rows(tmp_path / "out", rows(tmp_path)[:1])
    with reviewing(out) as served:
        page = pages.open(served.url)
        shows(page, "a.jpg")
        page.keyboard.press("a")
        page.locator("#end").get_by_text("1 decision saved").wait_for()
        assert barriers(page) == []
        page.keyboard.press("u")
        shows(page, "a.jpg")
    assert saved(out) == {}


def test_a_server_that_is_gone_is_said_and_the_text_is_kept(pages: Pages, out: OutFolder) -> None:
    with reviewing(out) as served:
        page = pages.open(served.url)
        shows(page, "a.jpg")
        page.keyboard.press("e")
        page.keyboard.type("A long text.")
    page.keyboard.press("Enter")
    page.get_by_role("alert").get_by_text("does not answer").wait_for()
    assert page.get_by_label("Text", exact=True).input_value() == "A long text."
    assert barriers(page) == []


def test_a_decision_is_said_to_be_saved_if_only_the_next_picture_does_not_come(
    pages: Pages, out: OutFolder
) -> None:
    with reviewing(out, where="confidence < 0.12") as served:
        page = pages.open(served.url)
        shows(page, "a.jpg")
        page.keyboard.press("a")
        shows(page, "b.jpg")
        page.route("**/api/queue*", lambda route: route.abort())
        page.keyboard.press("e")
        page.keyboard.type("A cat.")
        page.keyboard.press("Enter")
        page.get_by_role("alert").get_by_text("The decision is saved, but the next").wait_for()
        assert barriers(page) == []
        page.keyboard.press("u")
        shows(page, "b.jpg")
        page.keyboard.press("r")
        page.get_by_role("alert").get_by_text("The decision is saved, but the next").wait_for()
        page.unroute("**/api/queue*")
        page.get_by_role("button", name="Try again").click()
        page.locator("#end").get_by_text("2 decisions").wait_for()
    assert saved(out) == {"a": ("accepted", "A dog on a beach."), "b": ("rejected", None)}


def test_accepting_keeps_what_a_person_wrote_before_the_picture_changed(
    pages: Pages, out: OutFolder, tmp_path: Path
) -> None:
    decide(out, f"{tmp_path}/j.jpg", "edited", "A former text.", image_sha256="former")
    with reviewing(out) as served:
        page = pages.open(served.url)
        shows(page, "j.jpg")
        former = page.locator("#former").inner_text()
        assert former.startswith("The picture has changed. On ")
        assert former.endswith("ann wrote “A former text.”")
        assert page.locator("#caption").inner_text() == "A former text."
        page.keyboard.press("a")
        shows(page, "a.jpg")
    assert saved(out)["j"] == ("edited", "A former text.")


@pytest.mark.parametrize(("width", "scheme"), VIEWS)
def test_the_page_has_no_barriers(pages: Pages, served: Reviewing, width: int, scheme: str) -> None:
    page = pages.open(served.url, width, scheme)
    shows(page, "a.jpg")
    for key in ("n", "e", "Escape", "?", "Escape", "f", "Escape", "r"):
        assert (barriers(page), fits(page)) == ([], True), key
        page.keyboard.press(key)
    shows(page, "b.jpg")
    assert (barriers(page), fits(page)) == ([], True)
