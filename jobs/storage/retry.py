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


def with_retries(container: str, read: Callable[[], T]) -> T:
    """What `read` gives of a container; its errors become FetchErrors.

    A remote store is asked again after faults that may pass.
    """
    return as_fetch_error(read) if is_local(container) else retried(lambda _: undamaged(read))
