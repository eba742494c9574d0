"""The bytes of images: files are fetched one by one, members of containers read in order.

A container is opened once per partition and read in order by a thread of its own, while other
threads decode what it has read.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, nullcontext
from functools import partial
from threading import Lock, Semaphore
from typing import IO, Self

from captioner.jobs.errors import FetchError
from captioner.jobs.fetching.downloads import Downloads
from captioner.jobs.fetching.fetch import fetch, too_large
from captioner.jobs.fetching.parquet_rows import Found, open_rows
from captioner.jobs.storage.attempts.hosts import host_name
from captioner.jobs.storage.containers import container_version, open_archive
from captioner.jobs.storage.failures import as_fetch_error
from captioner.jobs.storage.file_types import is_parquet
from captioner.jobs.storage.uris import is_chain
from captioner.schemas.caption_table import Status
from captioner.schemas.image_record import ImageRecord, Member

Watch = Callable[[int], AbstractContextManager[object]]  # around work on the image at a position
AHEAD = 8  # members that are read and wait to be taken, at most


def unwatched(number: int) -> AbstractContextManager[object]:
    """Watch nothing."""
    return nullcontext()


class ImageReader:
    """The bytes of a partition's images, as a context manager; `read` is thread-safe.

    Read each image once. Those `at_hand` can be read at any time, members in order: at most AHEAD
    are read before they are asked for. The others are `downloads`, which come when they come.
    Remote reads have limits of their own; local ones may block for ever, so `watch` is around them.
    """

    def __init__(
        self, records: Sequence[ImageRecord], max_bytes: int, watch: Watch = unwatched
    ) -> None:
        self._records, self._max_bytes, self._watch = records, max_bytes, watch
        self._container = _Container(max_bytes)
        self._free = Semaphore(AHEAD)
        self._archives = Lock()  # read by one thread at a time
        self._pool = ThreadPoolExecutor(1)
        remote = {n: _url(r) for n, r in enumerate(records) if _is_remote(r)}
        self.at_hand = [number for number in range(len(records)) if number not in remote]
        self.downloads = Downloads(remote, max_bytes)
        self._members = {
            number: self._pool.submit(self._read_member, number, record.member, record.version)
            for number, record in enumerate(records)
            if record.member and not record.member.error
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.downloads.close()
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._free.release()  # for the one member that may be waiting to be read
        self._pool.shutdown()
        self._container.close()

    def read(self, number: int) -> bytes:
        """Return the bytes of the image at a position among the records, or raise FetchError."""
        record = self._records[number]
        if record.access and record.access.refused:
            raise FetchError(Status.REFUSED, record.access.refused)
        if number in self.downloads:
            return self.downloads.take(number)
        if record.member is None:
            return self._fetch(number, _url(record))
        if record.member.error:
            raise FetchError(Status.UNREADABLE, record.member.error)
        future = self._members.pop(number)
        try:
            found = future.result()
            return self._fetch(number, found) if isinstance(found, str) else found
        finally:
            self._free.release()

    def _fetch(self, number: int, url: str) -> bytes:
        if host_name(url):
            return fetch(url, self._max_bytes)
        # Waiting for other threads is not the fault of the image.
        with self._archives if is_chain(url) else nullcontext(), self._watch(number):
            return fetch(url, self._max_bytes)

    def _read_member(self, number: int, member: Member, version: str | None) -> Found:
        self._free.acquire()
        with nullcontext() if host_name(member.container) else self._watch(number):
            return self._container.read(member, version)


def _url(record: ImageRecord) -> str:
    """Return the path or URL at which an image is fetched, with its signature."""
    return (record.access and record.access.url) or record.uri


def _is_remote(record: ImageRecord) -> bool:
    is_refused = record.access is not None and record.access.refused
    return not is_refused and record.member is None and host_name(record.uri) is not None


class _Container:
    """The open container, which is that of the last member read."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._place: tuple[str, str | None] | None = None  # path or URL, and column
        self._file = ExitStack()
        self._read: Callable[[Member], Found]

    def read(self, member: Member, version: str | None) -> Found:
        """Read a member, after opening its container if another one is open."""
        place = (member.container, member.column)
        if place != self._place:
            self.close()
            self._read = self._open(member, version)
            self._place = place
        return self._read(member)

    def close(self) -> None:
        self._file.close()

    def _open(self, member: Member, version: str | None) -> Callable[[Member], Found]:
        try:
            return _open(member, version, self._max_bytes, self._file)
        except FetchError as error:
            return partial(_raise, error)  # then each of its members fails


def _open(
    member: Member, version: str | None, max_bytes: int, stack: ExitStack
) -> Callable[[Member], Found]:
    """Open the container of a member and return a function that reads its members.

    Raise FetchError if it has changed since it was listed: its members may be other images.
    """
    container = member.container
    if container_version(container) != version:
        reason = f"{container} has changed since it was listed: run again"
        raise FetchError(Status.FETCH_FAILED, reason)
    if is_parquet(container):
        rows = open_rows(container, max_bytes, member.column)
        return as_fetch_error(lambda: stack.enter_context(rows))
    file = as_fetch_error(lambda: stack.enter_context(open_archive(container)))
    return partial(_read, file, max_bytes)


def _read(file: IO[bytes], max_bytes: int, member: Member) -> bytes:
    if member.size > max_bytes:
        raise too_large(max_bytes)
    as_fetch_error(lambda: file.seek(member.offset))
    data = as_fetch_error(lambda: file.read(member.size))
    if len(data) < member.size:
        raise FetchError(Status.UNREADABLE, "the container ends within this image")
    return data


def _raise(error: FetchError, _member: Member) -> bytes:
    raise error
