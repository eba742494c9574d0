"""Failures as statuses of images, and whether they may pass."""

from captioner.jobs.errors import FetchError
from captioner.jobs.storage.attempts.faults import (
    Fault,
    fault_of,
    http_status,
    is_timeout,
    machine_fault,
)
from captioner.schemas.caption_table import Status

# Errors of packages that we do not depend on; they are not OSErrors.
_STATUS_BY_NAME = {
    "InvalidUrlClientError": Status.NOT_FOUND,
    "ParamValidationError": Status.NOT_FOUND,
    "NonHttpUrlRedirectClientError": Status.REFUSED,
    "NoCredentialsError": Status.DENIED,
    "PartialCredentialsError": Status.DENIED,
}
_STATUS_BY_HTTP = {
    **dict.fromkeys((404, 410), Status.NOT_FOUND),
    **dict.fromkeys((401, 403, 407), Status.DENIED),
}
FINAL = (Status.NOT_FOUND, Status.DENIED)


def failure_status(error: Exception) -> Status:
    """Return the status that an error of a store, or of this machine, gives to an image."""
    if isinstance(error, FetchError):
        return error.status
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return Status.NOT_FOUND
    if isinstance(error, PermissionError):
        return Status.DENIED
    if is_timeout(error):
        return Status.TIMEOUT
    if isinstance(error, MemoryError):
        return Status.OUT_OF_MEMORY
    by_name = _STATUS_BY_NAME.get(type(error).__name__, Status.FETCH_FAILED)
    return _STATUS_BY_HTTP.get(http_status(error), by_name)


def may_pass(error: Exception) -> bool:
    """Return whether another attempt may succeed."""
    is_final = failure_status(error) in FINAL or fault_of(error) is Fault.FINAL
    return is_shortage(error) or not is_final


def is_shortage(error: BaseException | None) -> bool:
    """Return whether this machine lacks something, such as memory or open files."""
    return isinstance(error, MemoryError) or (error is not None and bool(machine_fault(error)))
