"""The order of the review, its filters, and rows that are read when they are shown."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from captioner.jobs.errors import TemporaryError, UsageError
from captioner.jobs.publish.review.item import place, read_item, sureness, words
from captioner.jobs.publish.review.queue import Filters, Queue, build_queue, hashes, scope_of
from captioner.jobs.table.layout import OutFolder
from captioner.jobs.table.reviews import decisions
from captioner.schemas.caption_table import Status, WordConfidence
from tests.support.rows import decide, row, write_old_rows, write_rows


def names(queue: Queue) -> list[str]:
    """Return the names of the images in the order of their review."""
    items = [read_item(queue, number) for number in queue.upcoming()]
    return [Path(item.row["image_uri"]).stem for item in items]


def queue_of(out: OutFolder, where: str | None = None, **filters: Any) -> Queue:
    return build_queue(scope_of(out, where), Filters(**filters), decisions(out))


def set_gone(queue: Queue, images: dict[str, str | None], *, gone: bool) -> bool:
    """Take out images, given as URIs and hashes of their bytes, or put them back."""
    keys = [
        hashes(pa.chunked_array([list(each)], pa.string()))
        for each in zip(*images.items(), strict=True)
    ]
    return queue.set_gone(*keys, gone)


def named(confidences: dict[str, float | None], folder: str = "", **values: Any) -> list:
    return [row(f"{folder}/{n}.jpg", confidence=c, **values) for n, c in confidences.items()]


def test_what_changed_since_a_decision_comes_first_and_then_the_least_certain(
    tmp_path: Path,
) -> None:
    write_rows(tmp_path, named({"a": 0.4, "b": 0.2}, needs_review=True), "1")
    write_rows(tmp_path, named({"sure": 0.9, "changed": 0.8}, needs_review=False), "2")
    failed = [row("/failed.jpg", status=Status.UNREADABLE, caption=None, confidence=None)]
    out = write_rows(tmp_path, failed + named({"c": 0.3}, needs_review=True), "3")
    decide(out, "/changed.jpg", "edited", "A dog.", image_sha256="former")
    assert names(queue_of(out)) == ["changed", "b", "c", "a"]
    assert names(queue_of(out, status="all")) == ["changed", "b", "c", "a", "sure"]


def test_without_a_threshold_every_caption_is_to_review(tmp_path: Path) -> None:
    out = write_rows(tmp_path, named({"a": 0.4, "b": None, "c": 0.2}))
    decide(out, "/c.jpg", "accepted", "A picture of c.")
    assert names(queue_of(out)) == ["b", "a"]


def test_rows_are_chosen_by_status_confidence_folder_text_and_condition(tmp_path: Path) -> None:
    write_rows(tmp_path, named({"a": 0.1, "b": 0.5, "c": 0.9}, "/photos/Cats+dogs"), "1")
    labels = {"label": ["x", "y"]}
    out = write_rows(tmp_path, named({"cats": 0.3, "e": 0.7}, "/others"), "2", labels)
    decide(out, "/photos/Cats+dogs/b.jpg", "edited", "A dog's LIFE.")
    assert names(queue_of(out, status="decided")) == ["b"]
    assert names(queue_of(out, status="undecided")) == ["a", "cats", "e", "c"]
    assert names(queue_of(out, low=0.3, high=0.7)) == ["cats", "e"]
    assert names(queue_of(out, folder="cats+")) == ["a", "c"]
    assert names(queue_of(out, status="all", text="dog's life")) == ["b"]
    assert names(queue_of(out, "label = 'y' OR confidence > 0.8")) == ["e", "c"]
    with pytest.raises(UsageError, match="such as label"):
        queue_of(out, "labels = 'y'")


def test_a_decision_takes_out_the_image_and_its_copies_until_it_is_undone(tmp_path: Path) -> None:
    rows = [row(f"/{name}.jpg", image_sha256=sha) for name, sha in zip("abcd", "1213", strict=True)]
    rows += [row(f"/{name}.jpg", image_sha256=None) for name in "ef"]
    queue = queue_of(write_rows(tmp_path, rows))
    assert set_gone(queue, {"/a.jpg": "1", "/e.jpg": None}, gone=True)
    assert (names(queue), queue.remaining) == (["b", "d", "f"], 3)
    assert set_gone(queue, {"/a.jpg": "1"}, gone=False)
    assert names(queue) == list("abcdf")


def test_a_queue_knows_whether_it_has_the_images_that_are_put_back(tmp_path: Path) -> None:
    queue = queue_of(write_rows(tmp_path, [row("/a.jpg", image_sha256="1")]))
    assert set_gone(queue, {"/moved.jpg": "1"}, gone=True)
    assert names(queue) == []
    assert not set_gone(queue, {"/a.jpg": "1", "/another.jpg": None}, gone=False)
    assert names(queue) == ["a"]


def test_reviewers_at_work_at_once_see_neighbours_in_different_orders(tmp_path: Path) -> None:
    rows = [row(f"/{n:03}.jpg", confidence=n / 200) for n in range(200)]
    queue = queue_of(write_rows(tmp_path, rows))
    orders = [list(queue.upcoming(spread)) for spread in (0, 5, 12)]
    assert sorted(orders[1]) == sorted(orders[2]) == orders[0]
    assert max(orders[1][:64]) == max(orders[2][:64]) == 63
    assert not set(orders[1][:6]) & set(orders[2][:6])


def test_rows_of_any_row_group_are_read_alone(tmp_path: Path) -> None:
    out = write_rows(tmp_path, [row(f"/{n}.jpg", confidence=n / 10) for n in range(10)])
    (path,) = out.table_files()
    pq.write_table(pq.read_table(path), path, row_group_size=3)
    assert names(queue_of(out)) == [str(n) for n in range(10)]


def test_a_row_that_moved_is_never_taken_for_another_image(tmp_path: Path) -> None:
    out = write_rows(tmp_path, named({"a": 0.1, "b": 0.2}))
    queue = queue_of(out)
    for rows in (named({"b": 0.2, "a": 0.1}), []):
        write_rows(tmp_path, rows)
        with pytest.raises(TemporaryError, match="rewritten"):
            read_item(queue, 0)
    out.table_files()[0].unlink()
    with pytest.raises(TemporaryError, match="disappeared"):
        read_item(queue, 0)


def test_the_text_of_a_person_is_the_first_choice_after_the_caption(tmp_path: Path) -> None:
    alternatives = [{"caption": text, "log_prob": -5.0} for text in ("Two dogs.", "A dog.")]
    caption = {"caption": "A cat.", "alternatives": alternatives}
    out = write_rows(tmp_path, [row("/a.jpg", **caption), row("/b.jpg", **caption)])
    decide(out, "/b.jpg", "edited", "A dog.", image_sha256="former")
    b, a = (read_item(queue, n) for queue in [queue_of(out)] for n in queue.upcoming())
    assert a.alternatives == ["Two dogs.", "A dog."]
    assert b.alternatives == ["A dog.", "Two dogs."]
    former = b.shown()["former"]
    assert (former["text"], former["reviewer"], former["outdated"]) == ("A dog.", "ann", True)
    assert a.shown()["former"] is None


def test_words_are_doubtful_by_their_log_probability() -> None:
    assert words("A girl's hat.", None, [-0.1, -0.2, -3.0, -0.3, -0.1]) == [
        ("A", None),
        (" girl", None),
        ("'s", pytest.approx(0.0498, abs=1e-4)),
        (" hat.", None),
    ]
    assert words("A hat.", None, None) == words("A hat.", None, [-9.0]) == [("A hat.", None)]


def test_words_are_doubtful_by_their_confidence_if_they_have_one() -> None:
    caption = "Two girls' dogs, one in a dog-cart with a dog."
    sure = {"Two": 0.3, "girls": 0.9, "dogs": 0.4, "one": 0.8, "dog-cart": 0.2, "dog": 0.1}
    known = [WordConfidence(word=word, confidence=p) for word, p in sure.items()]
    assert words(caption, known, [-9.0] * 11) == [
        ("Two", 0.3),
        (" girls' ", None),
        ("dogs", 0.4),
        (", one in a ", None),
        ("dog-cart", 0.2),
        (" with a ", None),
        ("dog", 0.1),
        (".", None),
    ]
    assert words("A (c++) dog", [WordConfidence(word="c++", confidence=0.1)], None) == [
        ("A (", None),
        ("c++", 0.1),
        (") dog", None),
    ]
    assert words("A cat.", known, None) == [("A cat.", None)]  # of another caption


def test_a_confidence_has_a_word() -> None:
    values = (None, 0.0, 0.2, 0.5, 0.7, 1.0)
    assert [sureness(value) for value in values] == [
        "unknown",
        "almost certainly wrong",
        "probably wrong",
        "uncertain",
        "probably right",
        "almost certainly right",
    ]


@pytest.mark.parametrize(
    ("uri", "folder", "name"),
    [
        ("/photos/a/b.jpg", "/photos/a", "b.jpg"),
        ("s3://bucket/a/b.jpg", "s3://bucket/a", "b.jpg"),
        ("tar://a/b.jpg::/data/train.tar", "/data/train.tar", "a/b.jpg"),
        ("/data/train.parquet#row=7", "/data", "train.parquet#row=7"),
    ],
)
def test_an_image_has_a_name_and_a_folder(uri: str, folder: str, name: str) -> None:
    assert place(uri) == (folder, name)


def test_second_opinions_can_be_reviewed_alone_beside_a_manifests_own_column(
    tmp_path: Path,
) -> None:
    write_old_rows(tmp_path, ["/a.jpg"], former=["mine"])
    former = {"caption": "A cat.", "confidence": 0.5, "captioner": "a"}
    out = write_rows(tmp_path, [row("/b.jpg", former=former), row("/c.jpg")], "2")
    assert names(queue_of(out, "former IS NOT NULL")) == ["b"]
    assert set(names(queue_of(out, "former IS NULL"))) == {"a", "c"}
