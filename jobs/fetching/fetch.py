"""The URI of an image -> its bytes."""

import stat
from pathlib import Path
from typing import Any

from fsspec.archive import AbstractArchiveFileSystem
from fsspec.asyn import sync

from captioner.jobs.errors import FetchError
from captioner.jobs.storage.failures import fetch_error, undamaged
from captioner.jobs.storage.filesystems import archives_lock, filesystem
from captioner.jobs.storage.retry import retried
from captioner.jobs.storage.uris import is_http, is_local, local_path
from captioner.schemas.caption_table import Status


def fetch(uri: str, max_bytes: int) -> bytes:
    """Return the bytes at a local path or at any URL that fsspec opens.

    Raise FetchError with a status: not_found, denied, timeout, too_large (more than `max_bytes`) or
    fetch_failed. Transient failures of a remote store are retried for at most FETCH_SECONDS; a
    silent connection is given up after HTTP_READ_SECONDS, in S3 after the 15 s of s3fs.
    """
    if is_local(uri):
        return _fetch_local(local_path(uri), max_bytes)
    data = retried(lambda seconds: undamaged(lambda: _fetch_remote(uri, max_bytes + 1, seconds)))
    if len(data) > max_bytes:
        raise too_large(max_bytes)
    return data


def too_large(max_bytes: int) -> FetchError:
    """Return the error of an image that has more bytes than the job allows."""
    return FetchError(Status.TOO_LARGE, f"more than {max_bytes} bytes")


def _fetch_local(path: str, max_bytes: int) -> bytes:
    try:
        status = Path(path).stat()
        if not stat.S_ISREG(status.st_mode):  # a pipe would block forever
            raise FetchError(Status.FETCH_FAILED, "not a regular file")
        if status.st_size > max_bytes:
            raise too_large(max_bytes)
        return Path(path).read_bytes()
    except OSError as error:
        raise fetch_error(error) from error
    except ValueError as error:  # a null byte in the name
        raise FetchError(Status.NOT_FOUND, str(error)) from error


def _fetch_remote(uri: str, size: int, seconds: float) -> bytes:
    """Return the first `size` bytes of a remote file."""
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
    """Read with one request if the store can stream, which needs no size in advance."""
    try:
        file = await fs.open_async(path, "rb", size=size)
    except NotImplementedError:
        data: bytes = await fs._cat_file(path, start=0, end=size)
        return data
    if is_http(path):
        file.kwargs.update(fs.kwargs)  # such as headers, which fsspec drops here
    parts = []
    try:
        while size > 0 and (part := await file.read(size)):
            parts.append(part)
            size -= len(part)
    finally:
        await file.close()
    return b"".join(parts)
