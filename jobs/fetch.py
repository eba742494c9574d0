"""uri -> bytes."""

import errno
import os
import stat
import time
from pathlib import Path

import fsspec

from jobs.errors import FetchError
from jobs.uris import is_local, local_path, scheme
from schemas.caption_table import Status

RETRY_DELAYS = (0.5, 2.0, 8.0)  # seconds before the second, third and fourth attempt


def fetch(uri: str, max_bytes: int) -> bytes:
    """The bytes of a local path or of any URL that fsspec opens.

    FetchError with its status: not_found, denied, timeout, too_large (more than `max_bytes`) or
    fetch_failed. Faults of a remote store that may pass are retried.
    """
    if is_local(uri):
        return _fetch_local(local_path(uri), max_bytes)
    _require_protocol(uri)
    for delay in RETRY_DELAYS:
        try:
            return _fetch_remote(uri, max_bytes)
        except FetchError as error:
            if error.status not in (Status.TIMEOUT, Status.FETCH_FAILED):
                raise
            time.sleep(delay)
    return _fetch_remote(uri, max_bytes)


def _fetch_local(path: str, max_bytes: int) -> bytes:
    try:
        status = Path(path).stat()
        if not stat.S_ISREG(status.st_mode):  # a pipe would block for ever
            raise FetchError(Status.FETCH_FAILED, "not a regular file")
        if status.st_size > max_bytes:
            raise _too_large(max_bytes)
        return Path(path).read_bytes()
    except OSError as error:
        raise FetchError(_status(error), _reason(error)) from error
    except ValueError as error:  # a null byte in the name
        raise FetchError(Status.NOT_FOUND, str(error)) from error


def _require_protocol(uri: str) -> None:
    """A package that is not installed will not be there at the next attempt either."""
    try:
        fsspec.get_filesystem_class(scheme(uri))
    except (ImportError, ValueError) as error:
        raise FetchError(Status.FETCH_FAILED, str(error)) from error


def _fetch_remote(uri: str, max_bytes: int) -> bytes:
    try:
        with fsspec.open(uri, "rb") as file:
            data: bytes = file.read(max_bytes + 1)
    except OSError as error:
        raise FetchError(_status(error), _reason(error)) from error
    except Exception as error:  # each kind of store has errors of its own
        reason = f"{type(error).__name__}: {error}"
        raise FetchError(Status.FETCH_FAILED, reason) from error
    if len(data) > max_bytes:
        raise _too_large(max_bytes)
    return data


def _too_large(max_bytes: int) -> FetchError:
    return FetchError(Status.TOO_LARGE, f"more than {max_bytes} bytes")


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
