"""How a worker reads the members of containers: in order, opened once, and not far ahead."""

import io
import os
import tarfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from captioner.jobs.errors import FetchError
from captioner.jobs.fetching import container_reader
from captioner.jobs.fetching.container_reader import AHEAD, ImageReader
from captioner.jobs.sources.open_source import open_source
from captioner.jobs.storage import containers
from captioner.schemas.image_record import ImageRecord, Member, records_of
from tests.support.photographs import photograph

COUNT = 40
PHOTOS = [photograph(number) for number in range(COUNT)]


@pytest.fixture(params=["x.tar", "x.tar.gz"])
def archive(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    return write_archive(tmp_path / request.param)


def write_archive(path: Path) -> Path:
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as tar:
        for number, photo in enumerate(PHOTOS):
            header = tarfile.TarInfo(f"{number:03d}.jpg")
            header.size = len(photo)
            tar.addfile(header, io.BytesIO(photo))
    return path


def listed(*sources: Path | str) -> list[ImageRecord]:
    tables = [pa.Table.from_batches(open_source(source).batches) for source in sources]
    return records_of(pa.concat_tables(tables))


def contents(records: list[ImageRecord], max_bytes: int = 10**6) -> list[bytes | str]:
    """Return the bytes of each image, or the status of its failure."""
    found: list[bytes | str] = []
    with ImageReader(records, max_bytes) as reader:
        for number in range(len(records)):
            try:
                found.append(reader.read(number))
            except FetchError as error:
                assert str(error)
                found.append(str(error.status))
    return found


class Watched(io.RawIOBase):
    """A file that records which ranges of bytes were read."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.ranges: list[tuple[int, int]] = []

    def read(self, size: int | None = -1, /) -> bytes:
        start = self.file.tell()
        data = self.file.read(-1 if size is None else size)
        self.ranges.append((start, start + len(data)))
        return data

    def seek(self, offset: int, whence: int = 0, /) -> int:
        assert whence == 0 and offset >= self.file.tell(), "backwards"
        return self.file.seek(offset)

    def tell(self) -> int:
        return self.file.tell()


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> list[Watched]:
    """The containers that have been opened."""
    opened: list[Watched] = []
    original = containers.open_container

    @contextmanager
    def watch(container: str) -> Iterator[Watched]:
        with original(container) as file:
            opened.append(Watched(file))
            yield opened[-1]

    monkeypatch.setattr(containers, "open_container", watch)
    return opened


def test_an_archive_is_opened_once_and_read_forwards(archive: Path, watched: list[Watched]) -> None:
    records = listed(archive)
    assert len(watched) == 1
    assert contents(records) == PHOTOS
    assert len(watched) == 2


def test_the_listing_reads_each_byte_at_most_once(archive: Path, watched: list[Watched]) -> None:
    listed(archive)
    (file,) = watched
    ends = [0, *(end for _, end in file.ranges)]
    assert all(start >= end for end, (start, _) in zip(ends, file.ranges, strict=False))


def test_a_slice_reads_its_own_members_and_nothing_else(
    tmp_path: Path, watched: list[Watched]
) -> None:
    records = listed(write_archive(tmp_path / "x.tar"))[10:13]
    watched.clear()
    assert contents(records) == PHOTOS[10:13]
    (file,) = watched
    expected = [(r.member.offset, r.member.offset + r.member.size) for r in records if r.member]
    assert file.ranges == expected


def test_a_partition_of_several_archives_opens_each_once(
    tmp_path: Path, watched: list[Watched]
) -> None:
    names = ("a.tar", "b.tar.gz", "c.tar")
    records = listed(*(write_archive(tmp_path / name) for name in names))
    watched.clear()
    assert contents(records) == PHOTOS * 3
    assert len(watched) == 3


def test_members_in_another_order_are_read_as_well(archive: Path) -> None:
    assert contents(listed(archive)[::-1]) == PHOTOS[::-1]


def test_images_that_are_files_and_members_may_be_mixed(archive: Path, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"file")
    one, two, *_ = listed(archive)
    records = [one, ImageRecord(str(tmp_path / "a.jpg"), None), two]
    assert contents(records) == [PHOTOS[0], b"file", PHOTOS[1]]


def test_what_is_too_large_is_not_read(archive: Path, watched: list[Watched]) -> None:
    records = listed(archive)
    watched.clear()
    assert contents(records, max_bytes=10) == ["too_large"] * COUNT
    assert sum(end - start for start, end in watched[0].ranges) == 0


def test_an_archive_that_has_vanished_or_changed_is_the_status_of_each_of_its_rows(
    archive: Path, tmp_path: Path
) -> None:
    other = write_archive(tmp_path / "other.tar")
    records = listed(archive, other)
    os.utime(archive)
    assert contents(records) == ["fetch_failed"] * COUNT + PHOTOS
    archive.unlink()
    assert contents(records) == ["not_found"] * COUNT + PHOTOS


def test_damage_that_only_reading_finds_costs_the_rows_that_it_reaches(archive: Path) -> None:
    records = listed(archive)
    archive.write_bytes(archive.read_bytes()[: archive.stat().st_size // 2])
    version = containers.container_version(str(archive))
    found = contents([replace(record, version=version) for record in records])
    whole = found.index("unreadable")
    assert COUNT / 4 < whole < COUNT * 3 / 4
    assert found == PHOTOS[:whole] + ["unreadable"] * (COUNT - whole)


def test_what_the_listing_found_unreadable_says_so(archive: Path) -> None:
    damage = ImageRecord(str(archive), None, Member(str(archive), error="torn"))
    assert contents([*listed(archive)[:2], damage]) == [*PHOTOS[:2], "unreadable"]


def test_few_members_are_read_before_they_are_asked_for(archive: Path) -> None:
    read: list[int] = []
    original = container_reader._read

    def counting(file: IO[bytes], max_bytes: int, member: Member) -> bytes:
        read.append(member.offset)
        return original(file, max_bytes, member)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(container_reader, "_read", counting)
        with ImageReader(listed(archive), 10**6) as reader:
            deadline = time.monotonic() + 5
            while len(read) < AHEAD and time.monotonic() < deadline:
                time.sleep(0.01)
            time.sleep(0.1)
            assert len(read) == AHEAD
            assert [reader.read(number) for number in range(COUNT)] == PHOTOS


def test_a_partition_given_up_midway_ends_at_once(archive: Path) -> None:
    with pytest.raises(ZeroDivisionError), ImageReader(listed(archive), 10**6) as reader:
        reader.read(0)
        raise ZeroDivisionError


def test_a_reader_that_nobody_asks_for_images_ends_at_once(archive: Path) -> None:
    with ImageReader(listed(archive), 10**6):
        pass


def test_an_unforeseen_error_reaches_whoever_asks_and_nothing_hangs(
    archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(container_reader, "_read", fail)
    with ImageReader(listed(archive), 10**6) as reader:
        for number in range(COUNT):
            with pytest.raises(ZeroDivisionError):
                reader.read(number)


def test_many_threads_may_read(archive: Path) -> None:
    with ImageReader(listed(archive), 10**6) as reader, ThreadPoolExecutor(2 * AHEAD) as pool:
        assert list(pool.map(reader.read, range(COUNT))) == PHOTOS


class Unsteady(io.BytesIO):
    """A remote file whose every third read fails."""

    reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        Unsteady.reads += 1
        if Unsteady.reads % 3 == 0:
            raise ConnectionResetError("reset")
        return super().read(size)


def test_passing_faults_of_a_remote_store_cost_no_row(
    archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"memory://bucket/{archive.name}"
    with fsspec.open(url, "wb") as file:
        file.write(archive.read_bytes())
    unsteady = lambda *_, **__: Unsteady(archive.read_bytes())  # noqa: E731
    monkeypatch.setattr(MemoryFileSystem, "open", unsteady)
    monkeypatch.setattr("captioner.jobs.storage.attempts.retry.RETRY_DELAYS", (0.0, 0.0))
    assert contents(listed(url)) == PHOTOS
    assert Unsteady.reads >= 6


def test_what_lies_on_this_machine_is_watched_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Time that another host takes must not count as that of a disk."""
    named = ["http://host/a.jpg", "b.jpg", "zip://c.jpg::http://host/x.zip", "zip://d.jpg::x.zip"]
    images = [{"bytes": None, "path": name} for name in named]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    pq.write_table(pa.table({"image": pa.array(images, kind)}), tmp_path / "x.parquet")
    records = listed(tmp_path / "x.parquet")
    records.append(ImageRecord(f"zip://e.jpg::{tmp_path}/x.zip", None))
    watched: list[int] = []
    seen: list[tuple[str, list[int]]] = []

    @contextmanager
    def watch(number: int) -> Iterator[None]:
        watched.append(number)
        yield
        watched.remove(number)

    def fetch(url: str, _: int) -> bytes:
        seen.append((url.replace(f"{tmp_path}/", ""), [*watched]))
        return b""

    monkeypatch.setattr(container_reader, "AHEAD", 1)  # one after the other
    monkeypatch.setattr(container_reader, "fetch", fetch)
    with ImageReader(records, 10**6, watch) as reader:
        assert [reader.read(number) for number in range(5)] == [b""] * 5
    assert [url for url, _ in seen] == [*named, "zip://e.jpg::x.zip"]
    assert [number in during for number, (_, during) in enumerate(seen)] == [
        *(False, True, False, True, True)
    ]
