"""The bytes of images: fetched alone where each is a file, read in order where they are members.

A container is opened once a partition and read from the first of its images to the last, by a
thread of its own, while others decode what it has read.
"""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import groupby, repeat
from threading import Semaphore
from typing import IO

from captioner.jobs.errors import FetchError
from captioner.jobs.fetching.fetch import fetch, too_large
from captioner.jobs.fetching.parquet_rows import open_rows
from captioner.jobs.storage.containers import container_version, open_archive
from captioner.jobs.storage.failures import as_fetch_error
from captioner.jobs.storage.file_types import is_parquet
from captioner.schemas.caption_table import Status
from captioner.schemas.image_record import ImageRecord, Member

AHEAD = 8  # members read and not yet asked for, at most
Read = Callable[[], bytes]
Outcome = bytes | FetchError


@contextmanager
def image_reads(records: Sequence[ImageRecord], max_bytes: int) -> Iterator[Iterator[Read]]:
    """For each record, in order, a function that gives its bytes, or raises FetchError.

    Each is to be called once. A member is read soon after its function is taken.
    """
    reader = ThreadPoolExecutor(1)
    free = Semaphore(AHEAD)
    outcomes = _outcomes([record for record in records if _is_readable(record)], max_bytes)

    def read_next() -> Outcome:
        free.acquire()
        return next(outcomes)

    def wait_for(future: "Future[Outcome]") -> bytes:
        try:
            return _bytes(future.result())
        finally:
            free.release()

    def reads() -> Iterator[Read]:
        for record in records:
            if record.member is None:
                yield partial(fetch, record.uri, max_bytes)
            elif record.member.error:
                yield partial(_bytes, FetchError(Status.UNREADABLE, record.member.error))
            else:
                yield partial(wait_for, reader.submit(read_next))

    try:
        yield reads()
    finally:
        free.release(len(records) + 1)  # for reads whose bytes nobody will take
        reader.shutdown(cancel_futures=True)
        outcomes.close()


def _is_readable(record: ImageRecord) -> bool:
    return record.member is not None and not record.member.error


def _bytes(outcome: Outcome) -> bytes:
    if isinstance(outcome, FetchError):
        raise outcome
    return outcome


def _outcomes(records: Iterable[ImageRecord], max_bytes: int) -> Generator[Outcome, None, None]:
    """The bytes of each member, in order, or why there are none."""
    for container, group in groupby(records, lambda record: _member(record).container):
        yield from _of_container(container, list(group), max_bytes)


def _of_container(
    container: str, records: Sequence[ImageRecord], max_bytes: int
) -> Iterator[Outcome]:
    with ExitStack() as stack:
        try:
            read = _open(container, records[0].version, max_bytes, stack)
        except FetchError as error:
            yield from repeat(error, len(records))
            return
        for record in records:
            try:
                outcome: Outcome = read(_member(record))
            except FetchError as error:
                outcome = error
            yield outcome


def _open(
    container: str, version: str | None, max_bytes: int, stack: ExitStack
) -> Callable[[Member], bytes]:
    """What reads members; a container that is not what was listed would give the wrong images."""
    if container_version(container) != version:
        reason = f"{container} has changed since it was listed: run again"
        raise FetchError(Status.FETCH_FAILED, reason)
    if is_parquet(container):
        return as_fetch_error(lambda: stack.enter_context(open_rows(container, max_bytes)))
    file = as_fetch_error(lambda: stack.enter_context(open_archive(container)))
    return partial(_read, file, max_bytes)


def _read(file: IO[bytes], max_bytes: int, member: Member) -> bytes:
    if member.size > max_bytes:
        raise too_large(max_bytes)
    as_fetch_error(lambda: file.seek(member.offset))
    data = as_fetch_error(lambda: file.read(member.size))
    if len(data) < member.size:
        raise FetchError(Status.UNREADABLE, "its container ends within it")
    return data


def _member(record: ImageRecord) -> Member:
    assert record.member, "a record of a container"
    return record.member
