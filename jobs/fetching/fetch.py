"""The URI of an image -> its bytes."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import IO, Any

from fsspec.archive import AbstractArchiveFileSystem
from fsspec.asyn import sync

from captioner.jobs.errors import FetchError
from captioner.jobs.storage.attempts.hosts import host_name
from captioner.jobs.storage.attempts.retry import retried
from captioner.jobs.storage.failures import as_fetch_error, fetch_error, undamaged
from captioner.jobs.storage.filesystems import archives_lock, impatient_filesystem
from captioner.jobs.storage.uris import check_regular, is_http, is_local, local_path
from captioner.schemas.caption_table import Status

PATIENCE = 10.0  # seconds, for a host that does not answer
LOOK_SECONDS = 15.0
PART = 256 * 1024  # bytes that are read at a time
ALLOW_SECONDS = 0.02  # between two questions whether to read on
Allow = Callable[[int], bool]  # whether to read on now, given how many bytes were read


def fetch(uri: str, max_bytes: int) -> bytes:
    """Return the bytes at a local path or at any URL that fsspec opens, for a person who waits.

    Raise FetchError with a status: not_found, denied, timeout, too_large (more than `max_bytes`) or
    fetch_failed. Transient failures of a remote store are retried for at most FETCH_SECONDS, those
    of a host that does not answer at all for PATIENCE; a silent connection is given up after
    HTTP_READ_SECONDS, in S3 after the 15 s of s3fs.
    """
    if is_local(uri):
        return _fetch_local(local_path(uri), max_bytes)
    size = max_bytes + 1
    if host_name(uri) is None:  # in an archive on this machine
        data = as_fetch_error(lambda: read_remote(uri, size, 0.0))
    else:
        data = retried(lambda left: undamaged(lambda: read_remote(uri, size, left)), uri, PATIENCE)
    if len(data) > max_bytes:
        raise too_large(max_bytes)
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
    except OSError as error:
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
    read_remote(uri, 1, LOOK_SECONDS)


def read_remote(uri: str, size: int, seconds: float, allow: Allow = lambda read: True) -> bytes:
    """Return the first `size` bytes of a remote file, by one request; raise any error of its store.

    Where the store streams, a part is read once `allow` returns True. The whole takes `seconds`, at
    most.
    """
    fs, path = impatient_filesystem(uri)
    if fs.async_impl:
        data: bytes = sync(fs.loop, _within, fs, path, size, seconds, allow)
        return data
    if isinstance(fs, AbstractArchiveFileSystem):
        with archives_lock:
            return _read_file(fs, path, size)
    return _read_file(fs, path, size)


def _read_file(fs: Any, path: str, size: int) -> bytes:
    with fs.open(path, "rb") as file:
        data: bytes = file.read(size)
    return data


async def _within(fs: Any, path: str, size: int, seconds: float, allow: Allow) -> bytes:
    """Read with one request if the store can stream, which needs no size in advance."""
    data, start = bytearray(), time.monotonic()
    try:
        async with asyncio.timeout(seconds), _opened(fs, path, size) as read:
            while len(data) < size:
                while not allow(len(data)):
                    await asyncio.sleep(ALLOW_SECONDS)
                part = await read(min(size - len(data), PART))
                if not part:
                    break
                data += part
    except TimeoutError:
        if not data:
            raise
        took = time.monotonic() - start
        raise TimeoutError(f"the answer was not complete within {took:.0f} s") from None
    return bytes(data)


@asynccontextmanager
async def _opened(fs: Any, path: str, size: int) -> AsyncIterator[Callable[[int], Any]]:
    """Yield a coroutine function that reads the next bytes; close the connection if any are left.

    Otherwise it would not return to its pool, which has few.
    """
    if is_http(path):
        session = await fs.set_session()
        async with session.get(fs.encode_url(path), **fs.kwargs) as answer:
            answer.raise_for_status()
            try:
                yield answer.content.read
            finally:
                answer.close()
        return
    try:
        file = await fs.open_async(path, "rb", size=size)
    except NotImplementedError:
        data = iter([await fs._cat_file(path, start=0, end=size), b""])
        yield lambda _: _next_of(data)
        return
    try:
        yield file.read
    finally:
        await file.close()
        if body := getattr(file, "r", None):
            body.close()  # s3fs does not


async def _next_of(data: Any) -> bytes:
    part: bytes = next(data)
    return part
