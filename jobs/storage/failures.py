"""Failures of stores, judged in one place: the status of an image, or the error to raise.

All calls of fsspec are wrapped, so that callers see only errors of our own: StoreError where OUT
lies, FetchError for an image, UsageError or TemporaryError for a source.
"""

import errno
import os
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from fsspec.config import conf
from upath import UPath

from captioner.jobs.errors import (
    FetchError,
    HostDown,
    JobError,
    MachineFault,
    TemporaryError,
    UsageError,
    with_remedy,
)
from captioner.jobs.storage.attempts.faults import DAMAGE, OF_MACHINE, machine_fault
from captioner.jobs.storage.attempts.statuses import FINAL, failure_status, is_shortage, may_pass
from captioner.jobs.storage.attempts.texts import description
from captioner.jobs.storage.http.access import access_rules
from captioner.jobs.storage.http.parts import FileChanged
from captioner.jobs.storage.signatures import without_signatures
from captioner.jobs.storage.uris import ARCHIVES, is_local, scheme
from captioner.schemas.caption_table import Status

T = TypeVar("T")
SHORTEST_SECRET = 5  # characters; shorter values of options are words such as "path"

# What zipfile and tarfile, but no store, raise for damaged headers.
_OF_AN_INDEX = (IndexError, UnicodeError, OverflowError, struct.error, NotImplementedError)


def reason(error: Exception, seconds: float | None = None) -> str:
    """Return what an error says, without the values of storage options.

    `seconds` is how long something was tried, if that is known.
    """
    if fault := machine_fault(error):
        return without_secrets(with_remedy(fault))
    if isinstance(error, MemoryError):
        return f"not enough memory{f': {error}' if str(error) else ''}"
    if text := description(error, seconds):
        return without_secrets(text)
    if isinstance(error, OSError):
        text = error.strerror or str(error) or os.strerror(error.errno or errno.EIO)
    else:
        is_plain = isinstance(error, (FetchError, *DAMAGE)) and str(error)
        text = str(error) if is_plain else f"{type(error).__name__}: {error}"
    return without_secrets(text)


def without_secrets(text: str) -> str:
    """Return a text without the values of storage options and the signatures of URLs."""
    secrets = {*_texts(conf), *_texts(access_rules().headers)}
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, "***")
    return without_signatures(text)


def _texts(value: object) -> Iterator[str]:
    """Yield the strings in nested tables that may be secrets."""
    if isinstance(value, Mapping):
        for below in value.values():
            yield from _texts(below)
    elif isinstance(value, list | tuple):
        for below in value:
            yield from _texts(below)
    elif isinstance(value, str) and len(value) >= SHORTEST_SECRET:
        yield value


class StoreError(OSError):
    """A failure of the store of OUT; `is_final` if the same call would fail again."""

    is_final = False


class WrongOptions(StoreError):
    """Storage options, or arguments of a call, that a package of a store does not accept."""

    is_final = True


class StoreNotFound(StoreError, FileNotFoundError):
    """A bucket or object that does not exist."""

    is_final = True


class StoreDenied(StoreError, PermissionError):
    """Access that the store denies."""

    is_final = True


_BY_STATUS: Mapping[Status, type[StoreError]] = {
    Status.NOT_FOUND: StoreNotFound,
    Status.DENIED: StoreDenied,
}


@contextmanager
def store_errors(*passing: type[Exception]) -> Iterator[None]:
    """Convert any error of a call to OUT's store to StoreError.

    NotImplementedError, errors that are `passing`, and faults of this machine, such as a full disk,
    pass unchanged.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, (StoreError, NotImplementedError, *passing)) or _is_of_this_machine(
            error
        ):
            raise
        kind = WrongOptions if isinstance(error, TypeError | ValueError) else StoreError
        raise _BY_STATUS.get(failure_status(error), kind)(reason(error)) from error


def _is_of_this_machine(error: Exception) -> bool:
    if not isinstance(error, OSError):
        return False
    is_local_name = isinstance(error.filename, str) and error.filename.startswith("/")
    return is_local_name or error.errno in OF_MACHINE


@contextmanager
def job_errors(out: Path | UPath) -> Iterator[None]:
    """Convert StoreError to the JobError that ends a run."""
    try:
        yield
    except StoreError as error:
        if error.is_final:
            raise UsageError(
                f"cannot use {out}: {error}; give a bucket that exists and may be read, written "
                "and listed with the storage options and the environment of this job"
            ) from error
        raise TemporaryError(
            f"{out} does not answer as it should: {error}; what is committed stays; try again"
        ) from error


@contextmanager
def listing_errors(url: str, verb: str = "list") -> Iterator[None]:
    """Convert an error to UsageError if `url` is missing or denied, otherwise TemporaryError."""
    try:
        yield
    except JobError:
        raise
    except Exception as error:
        is_final = failure_status(error) in FINAL or _is_damage(url, error)
        kind = UsageError if is_final and not is_shortage(error) else TemporaryError
        raise kind(f"cannot {verb} {url}: {reason(error)}") from error


def _is_damage(url: str, error: Exception) -> bool:
    """Return whether an archive is damaged; on this machine, any error means that."""
    inner, *outer = url.split("::")
    is_here = all(is_local(each) or scheme(each) in ARCHIVES for each in outer)
    is_of_archive = scheme(inner) in ARCHIVES and (is_here or isinstance(error, _OF_AN_INDEX))
    return isinstance(error, DAMAGE) or is_of_archive


@contextmanager
def reading_errors(url: str) -> Iterator[None]:
    """Convert a transient error to TemporaryError, others to OSError, which readers expect."""
    try:
        yield
    except UsageError:
        raise
    except Exception as error:
        if may_pass(error):
            raise TemporaryError(f"cannot read {url}: {reason(error)}") from error
        raise OSError(reason(error)) from error


def fetch_error(error: Exception, seconds: float | None = None) -> FetchError:
    """Convert any error from opening or reading an image to a FetchError; see `reason`."""
    if isinstance(error, FetchError):
        return error
    if fault := machine_fault(error):
        return MachineFault(fault)
    text = str(error) if isinstance(error, UsageError) else reason(error, seconds)
    return FetchError(failure_status(error), text)


def as_fetch_error(read: Callable[[], T]) -> T:
    """Call `read`; convert its errors to FetchError, with `unreadable` for a damaged file."""
    try:
        return undamaged(read)
    except FetchError:
        raise
    except Exception as error:
        raise fetch_error(error) from error


def undamaged(read: Callable[[], T]) -> T:
    """Call `read`; raise FetchError for a damaged file, which no retry would mend."""
    try:
        return read()
    except DAMAGE as error:
        if isinstance(error, MemoryError):  # Arrow has one of its own
            raise
        text = str(error).partition("\n")[0] or type(error).__name__
        raise FetchError(Status.UNREADABLE, text) from error


def check_final(container: str, error: Exception) -> None:
    """Raise TemporaryError if the error may be transient: of a remote store, or of this machine."""
    fault = error.__cause__ if isinstance(error, FetchError) else error
    if isinstance(error, HostDown | FileChanged) or is_shortage(fault):
        raise TemporaryError(f"cannot read {container}: {fetch_error(error)}") from error
    is_damage = isinstance(error, FetchError) and error.status is Status.UNREADABLE
    if is_local(container) or is_damage or not isinstance(fault, Exception):
        return
    if not isinstance(fault, UsageError) and may_pass(fault):
        raise TemporaryError(f"cannot read {container}: {fetch_error(error)}") from error
