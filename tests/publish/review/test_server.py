"""The server of the review: who may talk to it, and what it saves."""

import asyncio
import io
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from PIL import Image

from captioner.jobs.publish.review.page import decided, others, session
from captioner.jobs.publish.review.queue import Filters, scope_of
from captioner.jobs.table.layout import OutFolder
from captioner.jobs.table.reviews import ReviewWriter, as_reviews, decisions, read_reviews
from tests.support.photographs import photograph
from tests.support.reviewing import Reviewing, eventually, reviewing
from tests.support.rows import decide, row, write_rows


@pytest.fixture
def out(tmp_path: Path) -> OutFolder:
    """A table of ten images, the first one the least certain; a.jpg exists."""
    (tmp_path / "a.jpg").write_bytes(photograph(0))
    rows = [row(f"{tmp_path}/{name}.jpg", confidence=n / 20) for n, name in enumerate("abcdefghij")]
    return write_rows(tmp_path / "out", rows)


@pytest.fixture
def page(out: OutFolder) -> Iterator[Reviewing]:
    with reviewing(out) as served:
        yield served


def saved(out: OutFolder) -> dict[str, tuple[str, str | None]]:
    """Return the decisions in force, by the image's name."""
    found = as_reviews(decisions(out).reviews)
    return {Path(each.image_uri).stem: (each.decision, each.text) for each in found}


def test_every_answer_has_the_headers_that_protect_it(page: Reviewing) -> None:
    answers = [page.get(path) for path in ("", "assets/app.js", "api/queue", "pictures/0", "x")]
    assert [answer.status for answer in answers] == [200, 200, 200, 409, 404]
    answers.append(Reviewing(f"{page.origin}/wrong/").get())
    for answer in answers:
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert answer.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    "path", ["", "api/queue", "assets/app.js", "shared/base.css", "pictures/0"]
)
def test_nothing_is_shown_without_the_token(page: Reviewing, path: str) -> None:
    token = urlsplit(page.url).path.strip("/")
    assert len(token) >= 32
    for wrong in ("wrong", token[:-1], f"{token}x", token.swapcase()):
        answer = Reviewing(f"{page.origin}/{wrong}/").get(path)
        assert answer.status == 403 and "the command printed" in answer.json["error"]
    assert Reviewing(page.origin).get(f"/{path}").status in (403, 404)


def test_a_name_that_points_here_is_refused(page: Reviewing) -> None:
    port = urlsplit(page.url).port
    foreign = ("evil.example", f"evil.example:{port}", "127.0.0.1.evil.example", "", "[::1", "[x]")
    for host in foreign:
        assert page.get("api/queue", Host=host).status == 403
    for host in (f"localhost:{port}", "127.0.0.1:8080", f"[::1]:{port}", socket.gethostname()):
        assert page.get("api/queue", Host=host).status == 200


def test_another_page_decides_nothing(page: Reviewing, out: OutFolder) -> None:
    (item, *_) = page.queue()["items"]
    values = {"item": item["id"], "decision": "accepted"}
    foreign = ("https://evil.example", "null", "http://127.0.0.1:1", "http://localhost", "http://[")
    for origin in foreign:
        assert page.post("api/decisions", values, Origin=origin).status == 403
        assert page.get("api/queue", Origin=origin).status == 403
    assert page.post("api/decisions", values, Origin="").status == 403
    assert saved(out) == {}


@pytest.mark.parametrize(
    ("path", "values", "status"),
    [
        ("api/decisions", b"not json", 400),
        ("api/decisions", [], 400),
        ("api/decisions", {"item": 1}, 400),
        ("api/decisions", {"item": "unknown", "decision": "accepted"}, 409),
        ("api/skip", {"item": "unknown"}, 409),
        ("api/undo", {}, 409),
        ("api/queue", {"filters": {"status": "mine"}}, 400),
        ("api/queue", {"filters": {"low": "x"}}, 400),
        ("api/queue", {"filters": {"folder": ["x"]}}, 400),
        ("api/queue", {"filters": {"colour": "x"}}, 400),
        ("api/queue", {"filters": {"status": "all", "text": "\ud800"}}, 400),
        ("api/queue", {"filters": {"status": "all", "folder": "\ud800"}}, 400),
        ("api/queue", {"filters": {"status": ["all"]}}, 400),
        ("api/queue", {"filters": {"status": {}}}, 400),
        ("api/queue", {"filters": {"low": "0.5"}}, 400),
        ("api/queue", {"filters": {"low": float("nan")}}, 400),
        ("api/queue", {"filters": {"high": 10**400}}, 400),
        ("api/queue", {"filters": {"text": 1}}, 400),
        ("api/queue", b"[" * 60_000, 400),
        ("api/queue", b"\xff\xfe{", 400),
        ("api/queue", b" " * 70_000, 413),
        ("api/queue", b" " * 10_000_000, 413),
        ("", {}, 405),
    ],
)
def test_a_request_that_makes_no_sense_is_refused(
    page: Reviewing, out: OutFolder, path: str, values: object, status: int
) -> None:
    answer = page.post(path, values)
    assert (answer.status, saved(out)) == (status, {})
    assert answer.json["error"]


def test_a_request_that_reaches_nothing_says_what_it_is(page: Reviewing) -> None:
    for answer, reason in (
        (page.post("pictures/0", {}), "405: Method Not Allowed"),
        (page.get("api/decisions"), "405: Method Not Allowed"),
        (page.get("assets/missing.js"), "404: Not Found"),
        (page.get("missing"), "there is nothing here"),
    ):
        assert answer.json == {"error": reason}


def test_a_fault_is_logged_without_the_address(
    page: Reviewing, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("a fault")

    monkeypatch.setattr(session.Session, "skip", fail)
    item = page.queue()["items"][0]
    answer = page.post("api/skip", {"item": item["id"], "window": "w"})
    assert answer.status == 500 and "the terminal" in answer.json["error"]
    assert "ZeroDivisionError: a fault" in caplog.text and "SkipHandler" in caplog.text
    assert urlsplit(page.url).path.strip("/") not in caplog.text


def test_files_beside_the_assets_are_not_served(page: Reviewing) -> None:
    for path in ("assets/../server.py", "assets/..%2fserver.py", "assets/%2e%2e/guard.py"):
        assert page.get(path).status == 404


def test_each_decision_is_saved_and_the_next_image_follows(page: Reviewing, out: OutFolder) -> None:
    expected = {
        "a": ("accepted", "", "A picture of a."),
        "b": ("edited", "  A \n dog.\x00 ", "A dog."),
        "c": ("rejected", "", None),
        "d": ("decorative", "", ""),
    }
    for name, (decision, text, _) in expected.items():
        found = page.queue()
        assert found["items"][0]["name"] == f"{name}.jpg"
        assert page.decide(found["items"][0], decision, text).status == 200
        assert saved(out)[name] == (decision, expected[name][2])
    found = page.queue()
    assert (found["remaining"], found["total"], found["saved"]) == (6, 10, 4)
    (first, *_) = as_reviews(read_reviews(out))
    assert (first.reviewer, first.origin, first.caption) == ("ann", "page", "A picture of a.")
    assert (first.confidence, first.captioner) == (0, "tiny@0123456789ab")


def test_a_text_that_does_not_fit_is_refused_and_the_image_stays(
    page: Reviewing, out: OutFolder
) -> None:
    item = page.queue()["items"][0]
    for text, reason in (("", "decorative"), ("x" * 126, "at most 125"), ("\x00\u202e", "empty")):
        answer = page.decide(item, "edited", text)
        assert answer.status == 409 and reason in answer.json["error"]
    assert page.decide(item, "undone").status == 409
    assert (page.names()[0], saved(out)) == ("a.jpg", {})


def test_undo_takes_decisions_and_skips_back_one_by_one(page: Reviewing, out: OutFolder) -> None:
    a, b, c, *_ = page.queue()["items"]
    page.decide(a, "edited", "A dog.")
    page.post("api/skip", {"window": "w", "item": b["id"]})
    page.decide(c, "rejected")
    assert page.names()[0] == "d.jpg"
    for name, left in (("c.jpg", {"a"}), ("b.jpg", {"a"}), ("a.jpg", set())):
        answer = page.post("api/undo", {"window": "w"}).json
        assert (answer["item"]["name"], set(saved(out))) == (name, left)
        assert page.names()[0] == name
    assert page.post("api/undo", {"window": "w"}).status == 409
    assert page.queue()["saved"] == 0


def test_skipped_images_come_when_all_others_are_decided(page: Reviewing) -> None:
    first = page.queue()["items"][0]
    page.post("api/skip", {"window": "w", "item": first["id"]})
    while (item := page.queue()["items"][0])["id"] != first["id"]:
        page.decide(item, "accepted")
    assert page.queue()["remaining"] == 1
    page.decide(first, "accepted")
    assert page.queue()["items"] == []


def test_each_step_reads_only_rows_that_were_not_read_before(
    page: Reviewing, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = list[int]()
    original = session.read_item
    monkeypatch.setattr(session, "read_item", lambda q, n: read.append(n) or original(q, n))
    for _ in range(3):
        page.decide(page.queue()["items"][0], "accepted")
    page.post("api/undo", {"window": "w"})
    assert page.names() == [f"{name}.jpg" for name in "cdefgh"]
    assert sorted(read) == list(range(8))


def test_filters_hold_for_a_window(page: Reviewing) -> None:
    filters = {"status": "all", "low": 0.2, "high": 0.3, "folder": "", "text": "OF"}
    found = page.post("api/queue", {"window": "other", "filters": filters}).json
    assert [item["name"] for item in found["items"]] == ["e.jpg", "f.jpg", "g.jpg"]
    assert found["filters"] == filters
    assert page.queue()["total"] == 10


def test_a_condition_holds_for_all_windows(out: OutFolder) -> None:
    with reviewing(out, where="image_uri LIKE '%/b.jpg' OR confidence > 0.4") as page:
        assert page.names() == ["b.jpg", "j.jpg"]


def test_two_windows_do_not_show_the_same_image(page: Reviewing) -> None:
    first, second = page.names("first"), page.names("second")
    assert not set(first) & set(second)
    third = page.names("third")  # shared with the others, rather than nothing
    assert third and third == [f"{name}.jpg" for name in "abcdefghij"][: len(third)]


def test_two_reviewers_lose_nothing_and_see_what_the_other_decided(
    out: OutFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "LOOK_SECONDS", 0)
    with reviewing(out, "ann") as ann, reviewing(out, "bob") as bob:
        a, b, *_ = ann.queue()["items"]
        theirs = bob.queue()["items"]
        assert bob.decide(theirs[0], "edited", "Bob's text.").status == 200
        eventually(lambda: ann.queue()["remaining"] == 9)
        answer = ann.decide(a, "edited", "Ann's text.").json  # shown to her before
        assert answer["by_other"] == {"reviewer": "bob", "decision": "edited"}
        ann.decide(b, "rejected")
        eventually(lambda: not {"a.jpg", "b.jpg"} & set(bob.names()))
    texts = [each.text for each in as_reviews(read_reviews(out))]
    assert texts == ["Bob's text.", "Ann's text.", None]
    assert saved(out)["a"] == ("edited", "Ann's text.")


def test_a_decision_that_another_takes_back_returns_the_image(
    out: OutFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "LOOK_SECONDS", 0)
    with reviewing(out, "ann") as ann:
        ann.decide(ann.queue()["items"][0], "rejected")
        with reviewing(out, "bob") as bob:
            assert "a.jpg" not in bob.names()
            ann.post("api/undo", {"window": "w"})
            eventually(lambda: "a.jpg" in bob.names("another"))


def test_what_others_decide_is_not_lost_while_the_table_cannot_be_listed(
    out: OutFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: OutFolder) -> object:
        raise OSError("away")

    monkeypatch.setattr(session, "LOOK_SECONDS", 0)
    monkeypatch.setattr(session, "table_version", fail)
    with reviewing(out, "ann") as ann:
        assert ann.queue()["remaining"] == 10
        decide(out, f"{tmp_path}/a.jpg", "rejected")
        eventually(lambda: ann.queue()["remaining"] == 9)


def test_a_decision_is_saved_although_the_queue_of_other_filters_cannot_be_built(
    out: OutFolder,
) -> None:
    (path,) = out.table_files()
    content = path.read_bytes()

    async def decided() -> None:
        path.write_bytes(b"no Parquet")
        current = session.Session(scope_of(out, None), "ann")
        await asyncio.wait([current.queues.begin(Filters())])
        path.write_bytes(content)
        desk = current.desk("w")
        desk.filters = Filters(status="all")
        item, *_ = (await current.window(desk)).items
        await current.decide(desk, item, "rejected", "")

    asyncio.run(decided())
    assert saved(out) == {"a": ("rejected", None)}


def test_the_decisions_are_read_once_for_all_queues_and_kept_up_to_date(
    out: OutFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = list[object]()
    original = decided.read_reviews
    monkeypatch.setattr(decided, "read_reviews", lambda o, p: read.extend(p) or original(o, p))
    known = decided.Decided(out)
    assert len(known.decisions()) == 0
    first = decide(out, "/x.jpg", "rejected")
    decide(out, "/y.jpg", "rejected")
    assert known.decisions() is known.decisions()
    ReviewWriter(out, "bob", "page").undo([first])
    assert known.decisions().reviews["image_uri"].to_pylist() == ["/y.jpg"]
    assert known.decisions().reviews.equals(decisions(out).reviews)
    assert len(read) == 3
    for path in out.storage.files(out.reviews, "*.jsonl"):
        path.unlink()
    decide(out, "/z.jpg", "rejected")
    assert known.decisions().reviews["image_uri"].to_pylist() == ["/z.jpg"]


def test_only_files_that_grew_are_read_again(
    out: OutFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    decide(out, "/x.jpg", "rejected")
    looking = others.Others(out, "own")
    assert [each.image_uri for each in looking.new()] == []
    decide(out, "/y.jpg", "rejected")
    read = list[object]()
    original = others.read_reviews
    monkeypatch.setattr(others, "read_reviews", lambda o, p: read.extend(p) or original(o, p))
    assert [each.image_uri for each in looking.new()] == ["/y.jpg"]
    assert [each.image_uri for each in looking.new()] == []
    assert len(read) == 1


def test_a_rewritten_table_is_read_again_and_decisions_stay_with_their_image(
    page: Reviewing, out: OutFolder, tmp_path: Path
) -> None:
    shown = page.queue()["items"]
    (path,) = out.table_files()
    path.unlink()
    changed = [row(f"{tmp_path}/{n}.jpg", confidence=0.5, caption="Another.") for n in "jihgfedcba"]
    write_rows(tmp_path / "out", changed, "merged")
    assert page.decide(shown[0], "accepted").status == 200
    assert page.decide(shown[1], "edited", "A dog.").status == 200
    assert saved(out) == {"a": ("accepted", "A picture of a."), "b": ("edited", "A dog.")}
    found = page.queue()["items"]
    assert [item["name"] for item in found] == [f"{name}.jpg" for name in "jihgfe"]
    assert found[0]["caption"] == "Another."


def test_a_table_that_disappears_is_an_error_that_passes(page: Reviewing, out: OutFolder) -> None:
    (path,) = out.table_files()
    content = path.read_bytes()
    path.write_bytes(b"no Parquet")
    answer = page.get("api/queue?window=w")
    assert answer.status == 500 and "is not a file of a caption table" in answer.json["error"]
    path.write_bytes(content)
    assert page.names()[0] == "a.jpg"


def test_pictures_are_small_and_upright_and_those_that_fail_say_why(page: Reviewing) -> None:
    a, b, *_ = page.queue()["items"]
    answer = page.get(f"pictures/{a['id']}")
    assert answer.headers["Content-Type"] == "image/jpeg"
    assert max(Image.open(io.BytesIO(answer.body)).size) <= 1024
    answer = page.get(f"pictures/{b['id']}")
    assert (answer.status, answer.json["error"]) == (404, "No such file or directory")


def test_a_decision_that_cannot_be_saved_is_not_lost_in_silence(
    page: Reviewing, out: OutFolder
) -> None:
    item = page.queue()["items"][0]
    Path(out.reviews).write_text("no folder")
    answer = page.decide(item, "accepted")
    assert answer.status == 500 and answer.json["error"].startswith("cannot read or write")
    Path(out.reviews).unlink()
    assert page.names()[0] == "a.jpg"
    assert page.decide(item, "accepted").status == 200
