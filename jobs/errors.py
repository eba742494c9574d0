"""Exit codes, and the errors that end a job: each message names the input and the remedy."""

import errno
from collections.abc import Mapping
from enum import IntEnum
from types import MappingProxyType

from captioner.errors import CaptionerError, CaptionerUnavailable
from captioner.schemas.caption_table import Status
from captioner.schemas.job_report import JobReport

MACHINE = "a worker's machine"  # as the host of images that it is at fault for
_REMEDIES = {  # of faults of a machine
    errno.EACCES: "give this user the right to do so",
    errno.EPERM: "give this user the right to do so",
    errno.EROFS: "mount it for writing, or give another folder",
    errno.ENOSPC: "make room there, or in TMPDIR for temporary files",
    errno.EDQUOT: "make room there, or ask for a larger quota",
    errno.EFBIG: "allow larger files (ulimit -f)",
    errno.EMFILE: "allow more open files (ulimit -n)",
    errno.ENFILE: "let fewer programs run on this machine: too many files are open",
    errno.EAGAIN: "allow more processes (ulimit -u)",
    errno.ENOMEM: "allow more memory (ulimit -v), or let fewer programs run",
}


class ExitCode(IntEnum):
    """Exit codes of the command line; 128 + n after signal n."""

    DONE = 0
    FAULT = 1
    USAGE = 2
    TOO_MANY_FAILURES = 3
    TEMPORARY = 75
    INTERRUPTED = 130
    BROKEN_PIPE = 141
    TERMINATED = 143


class JobError(Exception):
    """A fault that ends a job; what was committed stays."""

    exit_code = ExitCode.FAULT
    report: JobReport | None = None  # of the run that it ended, if one had begun


class UsageError(JobError):
    """A job that is impossible as given; the message says what to change."""

    exit_code = ExitCode.USAGE


class EmptySource(UsageError):
    """A source without images; `skipped` counts what else it has, by reason."""

    def __init__(self, message: str, skipped: Mapping[str, int] = MappingProxyType({})) -> None:
        super().__init__(message)
        self.skipped = skipped


class TemporaryError(JobError):
    """A transient fault: the same command may succeed later."""

    exit_code = ExitCode.TEMPORARY


class StaleCommit(JobError):
    """The worker lost the right to commit its part: a later run, or a split of it, owns it."""


class Abandoned(Exception):
    """The end of a task whose run has ended: nobody waits for its rows."""


class FetchError(Exception):
    """A failure to fetch one image; `status` says why."""

    def __init__(self, status: Status, message: str) -> None:
        super().__init__(message)
        self.status = status


class HostDown(FetchError):
    """An outage: the host of an image does not answer, so nothing is known about the image."""

    def __init__(self, host: str, trouble: str, status: Status = Status.FETCH_FAILED) -> None:
        super().__init__(status, trouble)
        self.host = host


class HostBusy(HostDown):
    """A refusal: the host of an image answers, but asks for fewer requests."""


class MachineFault(HostDown):
    """A fault of the machine that would fetch an image, such as too many open files.

    Nothing is known about the image; the message names the remedy.
    """

    def __init__(self, error: OSError) -> None:
        super().__init__(MACHINE, with_remedy(error))


class Terminated(KeyboardInterrupt):
    """SIGTERM, raised as Ctrl-C raises KeyboardInterrupt."""


class Interrupted(KeyboardInterrupt):
    """The end of a run by Ctrl-C or SIGTERM; `report` counts what was committed."""

    def __init__(self, report: JobReport) -> None:
        super().__init__(f"run {report.run_id} was interrupted")
        self.report = report


def with_remedy(error: OSError) -> str:
    """Return what an error of this machine says, and what to do about it, if that is known."""
    remedy = _REMEDIES.get(error.errno or 0)
    return f"{error}: {remedy}" if remedy else str(error)


def exit_code_of(error: BaseException) -> int:
    """Return the exit code of a command that ends with an error."""
    if isinstance(error, Interrupted):
        return error.report.exit_code
    if isinstance(error, KeyboardInterrupt):
        return ExitCode.TERMINATED if isinstance(error, Terminated) else ExitCode.INTERRUPTED
    if isinstance(error, CaptionerUnavailable):
        return ExitCode.TEMPORARY
    if isinstance(error, JobError):
        return error.exit_code
    return ExitCode.USAGE if isinstance(error, CaptionerError) else ExitCode.FAULT
