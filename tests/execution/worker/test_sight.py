"""Images that a worker cannot find: which of them may be there for others."""

from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from captioner.jobs.execution.worker.sight import first_seen, missing_images
from captioner.schemas.caption_table import CaptionRow, Status
from captioner.schemas.image_record import ImageRecord, Member
from tests.support.rows import row


@pytest.fixture
def bucket() -> Iterator[str]:
    """A URL below which `there.jpg` is, and nothing else."""
    store = fsspec.filesystem("memory")
    store.pipe("/sight/there.jpg", b"")
    yield "memory://sight"
    store.rm("/sight", recursive=True)


def rows(*records: ImageRecord, status: Status = Status.NOT_FOUND) -> list[CaptionRow]:
    return [row(record.uri, status=status) for record in records]


def test_what_was_listed_and_cannot_be_read_is_missing(tmp_path: Path, bucket: str) -> None:
    (tmp_path / "there.jpg").touch()
    gone, there = (
        ImageRecord(f"{tmp_path}/gone.jpg", None),
        ImageRecord(f"{tmp_path}/there.jpg", "1"),
    )
    listed, unlisted = ImageRecord(f"{bucket}/a.jpg", "etag"), ImageRecord(f"{bucket}/b.jpg", None)
    in_gone = ImageRecord("tar://x::a", "1", Member(f"{tmp_path}/gone.tar"))
    in_there = ImageRecord("tar://x::b", "1", Member(there.uri))  # such as a row without bytes
    records = [gone, there, listed, unlisted, in_gone, in_there]
    for status in (Status.NOT_FOUND, Status.DENIED):
        missing = missing_images(records, rows(*records, status=status))
        assert missing == {gone.uri, listed.uri, in_gone.uri}
    assert missing_images(records, rows(*records, status=Status.UNREADABLE)) == set()


def test_the_driver_looks_for_them_itself(tmp_path: Path, bucket: str) -> None:
    gone, listed = ImageRecord(f"{tmp_path}/gone.jpg", "1"), ImageRecord(f"{bucket}/there.jpg", "1")
    assert first_seen([gone]) is None
    assert first_seen([gone, listed]) == f"{bucket}/there.jpg"
