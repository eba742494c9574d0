"""The URI of an image -> its bytes."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager
from http import HTTPStatus
from typing import IO, Any

from fsspec.asyn import get_loop, sync

from captioner.jobs.errors import FetchError
from captioner.jobs.storage.archives.opened import archive_lock
from captioner.jobs.storage.attempts.faults import http_status, is_timeout
from captioner.jobs.storage.attempts.hosts import host_name
from captioner.jobs.storage.attempts.pace import Pace
from captioner.jobs.storage.attempts.retry import retried
from captioner.jobs.storage.bounded_reads import in_thread
from captioner.jobs.storage.failures import as_fetch_error, fetch_error, undamaged
from captioner.jobs.storage.filesystems import filesystem, impatient_filesystem
from captioner.jobs.storage.uris import check_regular, is_http, is_local, local_path
from captioner.schemas.caption_table import Status

PATIENCE = 10.0  # seconds, for a host that does not answer
LOOK_SECONDS = 15.0
PART = 256 * 1024  # bytes that are read at a time
WHOLE = (HTTPStatus.OK, HTTPStatus.NON_AUTHORITATIVE_INFORMATION)  # answers that are the image
RANGE = 2 * 1024 * 1024  # the same, of a store that cannot stream: it takes the whole pace, at most
ALLOW_SECONDS = 0.02  # between two questions whether to read on
Read = Callable[[int], Awaitable[bytes]]
Allow = Callable[[int], bool]  # whether to read on now, given how many bytes were read


def fetch(uri: str, max_bytes: int) -> bytes:
    """Return the bytes at a local path or at any URL that fsspec opens, for a person who waits.

    Raise FetchError with a status: not_found, denied, timeout, too_large (more than `max_bytes`),
    out_of_memory or fetch_failed. Transient failures of a remote store are retried for at most
    FETCH_SECONDS, those of a host that does not answer at all for PATIENCE; time in which bytes
    come does not count. A silent connection is given up after HTTP_READ_SECONDS, in S3 after the
    15 s of s3fs.
    """
    if is_local(uri):
        return _fetch_local(local_path(uri), max_bytes)
    size = max_bytes + 1
    if host_name(uri) is None:  # in an archive on this machine
        data = as_fetch_error(lambda: _read_here(uri, size))
    else:
        data = retried(lambda pace: undamaged(lambda: read_remote(uri, size, pace)), uri, PATIENCE)
    if len(data) > max_bytes:
        raise too_large(max_bytes)
    return data


def _read_here(uri: str, size: int) -> bytes:
    fs, path = filesystem(uri)
    with archive_lock(fs), fs.open(path, "rb") as file:
        data: bytes = file.read(size)
    return data


def too_large(max_bytes: int) -> FetchError:
    """Return the error of an image that has more bytes than the job allows."""
    return FetchError(Status.TOO_LARGE, f"more than {max_bytes} bytes")


def _fetch_local(path: str, max_bytes: int) -> bytes:
    try:
        check_regular(path)
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123
            size = os.fstat(file.fileno()).st_size
            data = b"" if size > max_bytes else _read_local(file, size, max_bytes + 1)
    except (OSError, MemoryError) as error:
        raise fetch_error(error) from error
    except ValueError as error:  # a null byte in the name
        raise FetchError(Status.NOT_FOUND, str(error)) from error
    if max(size, len(data)) > max_bytes:
        raise too_large(max_bytes)
    return data


def _read_local(file: IO[bytes], size: int, most: int) -> bytes:
    """Return at most `most` bytes of a file, in one piece if it has `size`, which it may not."""
    parts, left = [], most
    while left and (part := file.read(min(left, max(size + 1, PART)))):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def look_at(uri: str) -> None:
    """Read the beginning of a remote file; raise any error of its store."""
    read_remote(uri, 1, Pace(LOOK_SECONDS))


def read_remote(uri: str, size: int, pace: Pace, allow: Allow = lambda read: True) -> bytes:
    """Return the first `size` bytes of a remote file, by one request; raise any error of its store.

    A store that cannot stream is asked for RANGE bytes at a time. Each part is read once `allow`
    returns True. TimeoutError if the bytes come more slowly than the pace allows.
    """
    fs, path = impatient_filesystem(uri)
    pace.restart()  # to open an archive has limits of its own
    loop = fs.loop if fs.async_impl else get_loop()
    data: bytes = sync(loop, _within, _opened(fs, path), size, pace, allow)
    return data


async def _within(
    opened: AbstractAsyncContextManager[Read], size: int, pace: Pace, allow: Allow
) -> bytes:
    data = bytearray()
    try:
        async with asyncio.timeout(_left(pace)) as limit, opened as read:
            while len(data) < size:
                await _allowed(allow, pace, limit)
                part = await read(min(size - len(data), PART))
                if not part:
                    break
                data += part
                pace.received(len(part))
    except Exception as error:
        if limit.expired():
            raise TimeoutError(pace.description()) from None
        if data and is_timeout(error):
            raise TimeoutError(f"the answer stopped after {len(data)} bytes") from error
        raise
    return bytes(data[:size])


def _left(pace: Pace) -> float:
    return pace.until - time.monotonic()


async def _allowed(allow: Allow, pace: Pace, limit: asyncio.Timeout) -> None:
    """Wait until the next part may be read; set the time at which the answer is too slow then."""
    while not allow(pace.size):
        limit.reschedule(None)
        began = time.monotonic()
        await asyncio.sleep(ALLOW_SECONDS)
        pace.waited(time.monotonic() - began)
    limit.reschedule(asyncio.get_running_loop().time() + _left(pace))


def _opened(fs: Any, path: str) -> AbstractAsyncContextManager[Read]:
    """Return a context with a coroutine function that reads the next bytes."""
    if not fs.async_impl:
        return _opened_in_threads(fs, path)
    return _opened_http(fs, path) if is_http(path) else _opened_store(fs, path)


@asynccontextmanager
async def _opened_http(fs: Any, path: str) -> AsyncIterator[Read]:
    """Close the connection if bytes are left: it would not return to its pool, which has few."""
    session = await fs.set_session()
    async with session.get(fs.encode_url(path), **fs.kwargs) as answer:
        answer.raise_for_status()
        if answer.status not in WHOLE:
            raise _not_whole(answer)
        try:
            yield answer.content.read
        finally:
            answer.close()


def _not_whole(answer: Any) -> Exception:
    from aiohttp import ClientResponseError

    return ClientResponseError(
        answer.request_info, answer.history, status=answer.status, message=answer.reason
    )


@asynccontextmanager
async def _opened_store(fs: Any, path: str) -> AsyncIterator[Read]:
    try:
        file = await fs.open_async(path, "rb")
    except NotImplementedError:
        yield _Ranges(fs, path).read
        return
    try:
        yield file.read
    finally:
        await file.close()
        if body := getattr(file, "r", None):
            body.close()  # s3fs does not


class _Ranges:
    """A file of a store that cannot stream, such as gcsfs and adlfs."""

    def __init__(self, fs: Any, path: str) -> None:
        self._fs, self._path, self._start = fs, path, 0
        self._is_over = False

    async def read(self, _size: int) -> bytes:
        start = self._start
        if self._is_over:
            return b""
        try:
            part: bytes = await self._fs._cat_file(self._path, start=start, end=start + RANGE)
        except Exception as error:
            if http_status(error) != HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                raise
            part = b""  # the file ends before
        self._start += len(part)
        self._is_over = len(part) < RANGE
        return part


@asynccontextmanager
async def _opened_in_threads(fs: Any, path: str) -> AsyncIterator[Read]:
    """Read a file of a package that blocks. After an error, a thread may still be reading it."""
    lock = archive_lock(fs)
    file = await in_thread(_locked, lock, fs.open, path, "rb")
    yield lambda size: in_thread(_locked, lock, file.read, size)
    await in_thread(_locked, lock, file.close)


def _locked(lock: AbstractContextManager[Any], call: Callable[..., Any], *given: Any) -> Any:
    with lock:
        return call(*given)
