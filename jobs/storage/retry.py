"""Retry transient failures of a remote store: one policy, one deadline."""

import time
from collections.abc import Callable
from typing import TypeVar

from captioner.jobs.errors import FetchError, UsageError
from captioner.jobs.storage.failures import as_fetch_error, fetch_error, may_pass, undamaged
from captioner.jobs.storage.uris import is_local

T = TypeVar("T")
RETRY_DELAYS = (0.5, 2.0, 8.0)  # seconds before the second, third and fourth attempt
FETCH_SECONDS = 120.0  # all attempts together


def retried(read: Callable[[float], T]) -> T:
    """Call `read(seconds_left)` on a remote store; retry transient failures until the deadline.

    Other errors, and the last one, become FetchErrors.
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


def with_retries(container: str, read: Callable[[], T]) -> T:
    """Call `read()` on a container, with retries if it is remote; its errors become FetchErrors."""
    return as_fetch_error(read) if is_local(container) else retried(lambda _: undamaged(read))
