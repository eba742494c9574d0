"""uri -> bytes."""

import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from fsspec.archive import AbstractArchiveFileSystem
from fsspec.asyn import sync

from jobs.errors import FetchError, UsageError
from jobs.storage import archives_lock, failure_status, filesystem, may_pass, reason
from jobs.uris import is_http, is_local, local_path
from schemas.caption_table import Status

RETRY_DELAYS = (0.5, 2.0, 8.0)  # seconds before the second, third and fourth attempt
FETCH_SECONDS = 120.0  # all attempts together
T = TypeVar("T")


def fetch(uri: str, max_bytes: int) -> bytes:
    """The bytes of a local path or of any URL that fsspec opens.

    FetchError with its status: not_found, denied, timeout, too_large (more than `max_bytes`) or
    fetch_failed. Faults of a remote store that may pass are retried, for FETCH_SECONDS at most.
    A connection that says nothing is given up before that: by HTTP after HTTP_READ_SECONDS
    (storage.py), on S3 after the 15 s of s3fs, on others as their package has it.
    """
    if is_local(uri):
        return _fetch_local(local_path(uri), max_bytes)
    data = retried(lambda seconds: _fetch_remote(uri, max_bytes + 1, seconds))
    if len(data) > max_bytes:
        raise too_large(max_bytes)
    return data


def retried(read: Callable[[float], T]) -> T:
    """What `read`, which is told how many seconds are left, gives of a remote store.

    Its errors become FetchErrors, after more attempts where a fault may pass.
    """
    end = time.monotonic() + FETCH_SECONDS
    for delay in (*RETRY_DELAYS, FETCH_SECONDS):
        try:
            return read(end - time.monotonic())
        except FetchError:
            raise
        except Exception as error:
            is_final = isinstance(error, UsageError) or not may_pass(error)
            if is_final or time.monotonic() + delay >= end:
                raise fetch_error(error) from error
        time.sleep(delay)
    raise AssertionError("the last delay is beyond the end")


def fetch_error(error: Exception) -> FetchError:
    """What an error of opening or reading is to an image; each kind of store has its own."""
    if isinstance(error, FetchError):
        return error
    text = str(error) if isinstance(error, UsageError) else reason(error)
    return FetchError(failure_status(error), text)


def too_large(max_bytes: int) -> FetchError:
    return FetchError(Status.TOO_LARGE, f"more than {max_bytes} bytes")


def _fetch_local(path: str, max_bytes: int) -> bytes:
    try:
        status = Path(path).stat()
        if not stat.S_ISREG(status.st_mode):  # a pipe would block for ever
            raise FetchError(Status.FETCH_FAILED, "not a regular file")
        if status.st_size > max_bytes:
            raise too_large(max_bytes)
        return Path(path).read_bytes()
    except OSError as error:
        raise fetch_error(error) from error
    except ValueError as error:  # a null byte in the name
        raise FetchError(Status.NOT_FOUND, str(error)) from error


def _fetch_remote(uri: str, size: int, seconds: float) -> bytes:
    """The first bytes of a remote file."""
    fs, path = filesystem(uri)
    if fs.async_impl:
        data: bytes = sync(fs.loop, _read_async, fs, path, size, timeout=seconds)
        return data
    if isinstance(fs, AbstractArchiveFileSystem):
        with archives_lock:
            return _read_file(fs, path, size)
    return _read_file(fs, path, size)


def _read_file(fs: Any, path: str, size: int) -> bytes:
    with fs.open(path, "rb") as file:
        data: bytes = file.read(size)
    return data


async def _read_async(fs: Any, path: str, size: int) -> bytes:
    """By one request where the store can be read as a stream, which needs no size in advance."""
    try:
        file = await fs.open_async(path, "rb", size=size)
    except NotImplementedError:
        data: bytes = await fs._cat_file(path, start=0, end=size)
        return data
    if is_http(path):
        file.kwargs.update(fs.kwargs)  # headers and the like, which fsspec forgets here
    parts = []
    try:
        while size > 0 and (part := await file.read(size)):
            parts.append(part)
            size -= len(part)
    finally:
        await file.close()
    return b"".join(parts)
