"""What people decided: saved whole, by many at once, and which decision is in force."""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pytest

from captioner.jobs.errors import UsageError
from captioner.jobs.storage.backends.paths import out_path
from captioner.jobs.table import reviews as reviews_module
from captioner.jobs.table.layout import OutFolder
from captioner.jobs.table.reviews import ReviewWriter, as_reviews, decisions, read_reviews
from tests.support.rows import decide
from tests.support.servers import S3Server


@pytest.fixture
def out(tmp_path: Path) -> OutFolder:
    return OutFolder(out_path(tmp_path / "out"))


def texts(out: OutFolder, *uris: str, hashes: tuple[str | None, ...] = ()) -> list[object]:
    """Return the text in force for each image."""
    found = decisions(out)
    known = pa.chunked_array([hashes or [None] * len(uris)], pa.string())
    positions, _ = found.find(pa.chunked_array([uris]), known)
    return found.reviews["text"].take(positions).to_pylist()


def test_nothing_is_decided_in_an_out_without_reviews(out: OutFolder) -> None:
    assert read_reviews(out).num_rows == len(decisions(out)) == 0
    assert texts(out, "/a.jpg") == [None]


def test_a_decision_is_read_as_it_was_made(out: OutFolder) -> None:
    saved = decide(out, "/a.jpg", "edited", "Größe 犬\u2028 \"im\" 'Schnee'")
    assert as_reviews(read_reviews(out)) == [saved]
    assert (saved.reviewer, saved.undoes) == ("ann", None)


def test_the_latest_decision_is_in_force(out: OutFolder) -> None:
    decide(out, "/a.jpg", "edited", "first")
    decide(out, "/a.jpg", "edited", "second")
    decide(out, "/b.jpg", "decorative", "")
    decide(out, "/c.jpg", "rejected")
    assert texts(out, "/a.jpg", "/b.jpg", "/c.jpg", "/d.jpg") == ["second", "", None, None]
    assert len(decisions(out)) == 3


def test_what_a_killed_session_left_is_removed_a_day_later(out: OutFolder, tmp_path: Path) -> None:
    decide(out, "/a.jpg", "rejected")
    killed, saving = (tmp_path / f"out/reviews/{n}.jsonl.unfinished" for n in ("killed", "saving"))
    for path, hours in ((killed, 25), (saving, 23)):
        path.write_bytes(b"{")
        then = time.time() - hours * 3600
        os.utime(path, (then, then))
    decide(out, "/b.jpg", "rejected")
    assert (killed.exists(), saving.exists()) == (False, True)
    assert len(decisions(out)) == 2


def test_an_undone_decision_gives_way_to_the_one_before_it(out: OutFolder) -> None:
    decide(out, "/a.jpg", "edited", "first")
    second = decide(out, "/a.jpg", "edited", "second")
    writer = ReviewWriter(out, "bob", "page")
    writer.undo([second])
    assert texts(out, "/a.jpg") == ["first"]
    writer.undo([each for each in as_reviews(read_reviews(out)) if each.text == "first"])
    assert len(decisions(out)) == 0


def test_a_moved_or_copied_file_keeps_its_decision(out: OutFolder) -> None:
    decide(out, "/a.jpg", "edited", "a dog", image_sha256="s1")
    assert texts(out, "/moved.jpg", "/other.jpg", hashes=("s1", "s2")) == ["a dog", None]


def test_files_that_swap_their_names_keep_their_texts(out: OutFolder) -> None:
    decide(out, "/a.jpg", "edited", "a dog", image_sha256="s1")
    decide(out, "/b.jpg", "edited", "a cat", image_sha256="s2")
    assert texts(out, "/a.jpg", "/b.jpg", hashes=("s2", "s1")) == ["a cat", "a dog"]


def test_a_copy_with_a_decision_of_its_own_keeps_that(out: OutFolder) -> None:
    decide(out, "/a.jpg", "edited", "a dog", image_sha256="s1")
    decide(out, "/copy.jpg", "decorative", "", image_sha256="s1")
    assert texts(out, "/a.jpg", "/copy.jpg", hashes=("s1", "s1")) == ["a dog", ""]


def test_a_decision_about_other_bytes_holds_but_is_outdated(out: OutFolder) -> None:
    decide(out, "/a.jpg", "edited", "a dog", image_sha256="s1")
    found = decisions(out)
    uris = pa.chunked_array([["/a.jpg", "/a.jpg", "/a.jpg"]])
    positions, outdated = found.find(uris, pa.chunked_array([["s1", "s2", None]]))
    assert positions.to_pylist() == [0, 0, 0]
    assert outdated.to_pylist() == [False, True, False]


def test_many_people_at_once_lose_nothing(out: OutFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reviews_module, "FILE_REVIEWS", 7)  # so that files are begun meanwhile
    template = decide(out, "/first.jpg", "accepted", "x")
    shared = ReviewWriter(out, "bob", "page")

    def work(person: int) -> None:
        writer = shared if person % 2 else ReviewWriter(out, f"person {person}", "page")
        for number in range(20):
            writer.add(
                [template.__class__(**{**vars(template), "image_uri": f"/{person}/{number}"})]
            )

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(6)))
    saved = read_reviews(out)
    assert len(set(saved["id"].to_pylist())) == saved.num_rows == len(decisions(out)) == 121
    times = saved["reviewed_at"].to_pylist()
    assert times == sorted(times)


def test_a_failed_save_leaves_what_was_there(
    out: OutFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    template = decide(out, "/a.jpg", "accepted", "x")
    writer = ReviewWriter(out, "bob", "page")
    writer.add([template])
    before = read_reviews(out)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(OSError, match="No space"):
            writer.add([template])
    assert read_reviews(out).equals(before)
    writer.add([template])
    assert read_reviews(out).num_rows == before.num_rows + 1


def test_a_session_without_decisions_leaves_nothing(out: OutFolder) -> None:
    assert ReviewWriter(out, "ann", "page").add([]) == []
    assert read_reviews(out).num_rows == 0


def test_a_foreign_file_is_named(out: OutFolder) -> None:
    decide(out, "/a.jpg", "accepted", "x")
    (Path(str(out.reviews)) / "notes.jsonl").write_text("hello\n")
    with pytest.raises(UsageError, match=r"notes\.jsonl is not a file of reviews"):
        decisions(out)


def test_reviews_may_lie_on_a_store(store: S3Server, url: str) -> None:
    out = OutFolder(out_path(url))
    decide(out, "s3://photos/a.jpg", "edited", "a dog")
    decide(out, "s3://photos/a.jpg", "edited", "a brown dog")
    assert texts(out, "s3://photos/a.jpg") == ["a brown dog"]
