"""uri -> bytes."""

import errno
import os
import stat
import time
from pathlib import Path
from typing import BinaryIO, cast

import fsspec

from jobs.errors import FetchError
from jobs.uris import is_local, local_path
from schemas.caption_table import Status

RETRY_DELAYS = (0.5, 2.0, 8.0)  # seconds before the second, third and fourth attempt


def fetch(uri: str, max_bytes: int) -> bytes:
    """The bytes of a local path or of any URL that fsspec opens.

    FetchError with its status: not_found, denied, timeout, too_large (more than `max_bytes`) or
    fetch_failed. Faults of a remote store that may pass are retried.
    """
    if is_local(uri):
        return _attempt(uri, max_bytes)
    for delay in RETRY_DELAYS:
        try:
            return _attempt(uri, max_bytes)
        except FetchError as error:
            if error.status not in (Status.TIMEOUT, Status.FETCH_FAILED):
                raise
            time.sleep(delay)
    return _attempt(uri, max_bytes)


def _attempt(uri: str, max_bytes: int) -> bytes:
    try:
        with _open(uri) as file:
            data = file.read(max_bytes + 1)
    except OSError as error:
        raise FetchError(_status(error), _reason(error)) from error
    except ValueError as error:  # a null byte in the name
        raise FetchError(Status.NOT_FOUND, str(error)) from error
    if len(data) > max_bytes:
        raise FetchError(Status.TOO_LARGE, f"more than {max_bytes} bytes")
    return data


def _open(uri: str) -> BinaryIO:
    if not is_local(uri):
        return cast(BinaryIO, fsspec.open(uri, "rb").open())
    path = local_path(uri)
    if not stat.S_ISREG(Path(path).stat().st_mode):  # a pipe would block for ever
        raise OSError(errno.EINVAL, "not a regular file")
    return Path(path).open("rb")


def _status(error: OSError) -> Status:
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return Status.NOT_FOUND
    if isinstance(error, PermissionError):
        return Status.DENIED
    if isinstance(error, TimeoutError):
        return Status.TIMEOUT
    return Status.FETCH_FAILED


def _reason(error: OSError) -> str:
    return error.strerror or str(error) or os.strerror(error.errno or errno.EIO)
