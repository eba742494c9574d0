"""Failures of SQLite files, judged in one place: the error to raise."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from captioner.jobs.errors import JobError, TemporaryError, UsageError


@contextmanager
def sqlite_errors(path: object, *, damaged: str, refused: str) -> Iterator[None]:
    """Convert SQLite's errors about the file at `path` to a JobError.

    TemporaryError while another command uses it; UsageError with the remedy `damaged` or, for a
    file that may not be opened or written, `refused`.
    """
    try:
        yield
    except sqlite3.DatabaseError as error:
        raise _job_error(error, path, damaged, refused) from error


def _job_error(error: sqlite3.DatabaseError, path: object, damaged: str, refused: str) -> JobError:
    match getattr(error, "sqlite_errorcode", 0) & 0xFF:  # the rest of the code is details
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return TemporaryError(f"another command is using {path}; try again later")
        case sqlite3.SQLITE_NOTADB | sqlite3.SQLITE_CORRUPT:
            return UsageError(f"{path} is damaged ({error}): {damaged}")
        case sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM:
            return UsageError(f"cannot write to {path} ({error}): {refused}")
        case sqlite3.SQLITE_FULL:
            return JobError(f"cannot write to {path} ({error}): make room on its disk")
    if "no such" in str(error):
        return UsageError(f"{path} is incomplete ({error}): {damaged}")
    return JobError(f"{path} failed: {error}")
