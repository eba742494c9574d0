"""What goes wrong in a store: the status of an image, and the error to raise."""

import errno
import gzip
import os
import tarfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from traceback import walk_tb
from typing import TypeVar

import pyarrow as pa
from fsspec.config import conf
from upath import UPath

from captioner.jobs.errors import FetchError, JobError, TemporaryError, UsageError
from captioner.jobs.storage.uris import is_local
from captioner.schemas.caption_table import Status

T = TypeVar("T")
SHORTEST_SECRET = 5  # characters; shorter values of options are words such as "path"

# Faults of these classes, which no package of ours brings, are no OSError.
_STATUS_BY_NAME = {
    "ReadTimeoutError": Status.TIMEOUT,
    "ConnectTimeoutError": Status.TIMEOUT,
    "NoCredentialsError": Status.DENIED,
    "PartialCredentialsError": Status.DENIED,
}

_STATUS_BY_HTTP = {
    **dict.fromkeys((404, 410), Status.NOT_FOUND),
    **dict.fromkeys((401, 403, 407), Status.DENIED),
}

_MAY_PASS = (408, 425, 429)  # of the HTTP statuses that blame the request


@contextmanager
def reading_errors(url: str) -> Iterator[None]:
    """Stores have errors of their own; those that read files know OSError."""
    try:
        yield
    except UsageError:
        raise
    except Exception as error:
        if may_pass(error):
            raise TemporaryError(f"cannot read {url}: {reason(error)}") from error
        raise OSError(reason(error)) from error


def failure_status(error: Exception) -> Status:
    """not_found, denied or timeout, where the error of a store says so; otherwise fetch_failed."""
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return Status.NOT_FOUND
    if isinstance(error, PermissionError):
        return Status.DENIED
    if isinstance(error, TimeoutError):
        return Status.TIMEOUT
    by_name = _STATUS_BY_NAME.get(type(error).__name__, Status.FETCH_FAILED)
    return _STATUS_BY_HTTP.get(_http_status(error), by_name)


def may_pass(error: Exception) -> bool:
    """Whether another attempt may succeed where a store failed so."""
    if failure_status(error) in (Status.NOT_FOUND, Status.DENIED):
        return False
    status = _http_status(error)
    return not 400 <= status < 500 or status in _MAY_PASS


def _http_status(error: Exception) -> int:
    """What aiohttp, gcsfs and azure keep of the answer; 0 if it is none of theirs."""
    codes = (getattr(error, name, None) for name in ("status", "status_code", "code"))
    return next((int(code) for code in map(str, codes) if code.isdecimal()), 0)


def reason(error: Exception) -> str:
    """What an error says, without the values of storage options."""
    if isinstance(error, OSError):
        text = error.strerror or str(error) or os.strerror(error.errno or errno.EIO)
    else:
        text = f"{type(error).__name__}: {error}"
    return without_secrets(text)


def without_secrets(text: str) -> str:
    """A text without the values of storage options."""
    for secret in sorted(_texts(conf), key=len, reverse=True):
        text = text.replace(secret, "***")
    return text


def _texts(value: object) -> Iterator[str]:
    """The texts in a table of tables."""
    if isinstance(value, Mapping):
        for below in value.values():
            yield from _texts(below)
    elif isinstance(value, list | tuple):
        for below in value:
            yield from _texts(below)
    elif isinstance(value, str) and len(value) >= SHORTEST_SECRET:
        yield value


_PACKAGES = {"botocore", "aiobotocore", "aiohttp", "s3fs", "gcsfs", "google", "adlfs", "azure"}


@contextmanager
def os_errors() -> Iterator[None]:
    """The errors that the packages of stores have of their own become OSErrors."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        if isinstance(error, NotImplementedError) or not _is_of_store(error):
            raise
        wrong = _WrongOptions if isinstance(error, TypeError | ValueError) else OSError
        kind = _OS_ERRORS.get(failure_status(error), wrong)
        raise kind(reason(error)) from error


@contextmanager
def job_errors(path: Path | UPath) -> Iterator[None]:
    """What goes wrong with a store becomes the JobError that ends the run, and says so."""
    if isinstance(path, Path):
        yield
        return
    try:
        with os_errors():
            yield
    except OSError as error:
        if _is_of_this_machine(error):
            raise JobError(f"cannot go on: {error}") from error
        if isinstance(error, FileNotFoundError | PermissionError | _WrongOptions):
            raise UsageError(
                f"cannot use {path}: {reason(error)}; give a bucket that is there and may be read, "
                "written and listed with the storage options and the environment of this job"
            ) from error
        raise TemporaryError(
            f"{path} does not answer as it should: {reason(error)}; what is committed stays, try "
            "again"
        ) from error


def is_of_arrow(error: Exception) -> bool:
    """Whether an error says that a file is no Parquet, rather than that a store failed."""
    return isinstance(error, pa.ArrowException) or _raised_in(error) == "pyarrow"


_LOCAL_FAULTS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE, errno.ENFILE)


class _WrongOptions(OSError):
    """A package of a store does not take the storage options."""


_OS_ERRORS: Mapping[Status, type[OSError]] = {
    Status.NOT_FOUND: FileNotFoundError,
    Status.DENIED: PermissionError,
}


def _is_of_store(error: Exception) -> bool:
    """Whether a package of a store has an error of its own, or chokes on what it is given."""
    return type(error).__module__.partition(".")[0] in _PACKAGES or _raised_in(error) in _PACKAGES


def _is_of_this_machine(error: OSError) -> bool:
    is_local = isinstance(error.filename, str) and error.filename.startswith("/")
    return is_local or error.errno in _LOCAL_FAULTS


def _raised_in(error: Exception) -> str:
    """The package whose code raised an error."""
    modules = [frame.f_globals.get("__name__", "") for frame, _ in walk_tb(error.__traceback__)]
    return str(modules[-1]).partition(".")[0] if modules else ""


_DAMAGE = (EOFError, zlib.error, gzip.BadGzipFile, tarfile.TarError, pa.ArrowException)


def as_fetch_error(read: Callable[[], T]) -> T:
    """What `read` gives; its errors become FetchErrors, those of damaged files unreadable."""
    try:
        return undamaged(read)
    except FetchError:
        raise
    except Exception as error:
        raise fetch_error(error) from error


def check_final(container: str, error: Exception) -> None:
    """TemporaryError if it may have been a fault of a remote store that passes."""
    fault = error.__cause__ if isinstance(error, FetchError) else error
    is_damage = isinstance(error, FetchError) and error.status is Status.UNREADABLE
    if is_local(container) or is_damage or not isinstance(fault, Exception):
        return
    if not isinstance(fault, UsageError) and may_pass(fault):
        raise TemporaryError(f"cannot read {container}: {fetch_error(error)}") from error


def undamaged(read: Callable[[], T]) -> T:
    """What `read` gives; FetchError for a damaged file, which another attempt would not mend."""
    try:
        return read()
    except _DAMAGE as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise FetchError(Status.UNREADABLE, reason) from error


def fetch_error(error: Exception) -> FetchError:
    """What an error of opening or reading is to an image; each kind of store has its own."""
    if isinstance(error, FetchError):
        return error
    text = str(error) if isinstance(error, UsageError) else reason(error)
    return FetchError(failure_status(error), text)


_FINAL = (Status.NOT_FOUND, Status.DENIED)


@contextmanager
def listing_errors(url: str, verb: str = "list") -> Iterator[None]:
    """UsageError for what is not there or may not be listed, TemporaryError for other faults."""
    try:
        yield
    except JobError:
        raise
    except Exception as error:
        kind = UsageError if failure_status(error) in _FINAL else TemporaryError
        raise kind(f"cannot {verb} {url}: {reason(error)}") from error
