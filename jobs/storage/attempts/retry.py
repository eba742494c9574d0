"""Retry transient failures of a remote store: one policy, one deadline."""

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from captioner.jobs.errors import FetchError, HostBusy, HostDown, UsageError
from captioner.jobs.storage.attempts.faults import (
    Fault,
    fault_of,
    has_bad_certificate,
    is_unknown_host,
    may_be_of_this_machine,
    retry_after,
)
from captioner.jobs.storage.attempts.hosts import LONGEST_WAIT, Host, has_any_given, host_of
from captioner.jobs.storage.attempts.pace import Pace
from captioner.jobs.storage.attempts.statuses import FINAL, failure_status
from captioner.jobs.storage.failures import as_fetch_error, fetch_error, undamaged
from captioner.jobs.storage.uris import is_http
from captioner.schemas.caption_table import Status

T = TypeVar("T")
RETRY_DELAYS = (0.5, 2.0, 8.0)  # seconds before the second, third and later attempts
FETCH_SECONDS = 120.0  # all attempts together, and how long a host may be silent
BUSY_ATTEMPTS = 20  # of an image, where a host that answers others asks for fewer requests
BROKEN_IMAGES = 3  # images with which a host fails, and answers no other: then it is the host
CLAIM_SECONDS = 0.05  # between two looks whether a host has room for another request
LOOK_SECONDS = 5.0  # for which it is known that a host gives what it gave before


@dataclass
class Tries:
    """The attempts to read one image, or one part of a container, from a host.

    Time in which bytes come, or that the host asks to wait, does not count; nor do attempts at
    which it asks for fewer requests, the `refusals`. After `patience` seconds without any answer of
    the host, it is taken for down. `look` reads the beginning of a URI, to see whether the host
    gives what it gave before.
    """

    uri: str
    host: Host
    patience: float | None = None  # FETCH_SECONDS
    look: Callable[[str], object] | None = None
    attempts: int = 0
    refusals: int = 0
    seconds: float = 0.0  # of attempts without progress, and of pauses between them
    _first: float = 0.0
    _began: float = 0.0
    _pace: Pace = field(default_factory=lambda: Pace(0.0))

    def begin(self) -> Pace:
        """Begin an attempt; return the pace at which its answer must come."""
        self._pace = Pace(max(FETCH_SECONDS - self.seconds, FETCH_SECONDS / 8))
        if self.host.trouble:  # to see whether it is down must not take long
            self._pace.whole = FETCH_SECONDS
        self._began = self._pace.since
        if not self.attempts:
            self._first = self._began
        return self._pace

    def succeeded(self) -> None:
        self.host.gave(self.uri)

    def failed(self, error: Exception) -> float:
        """Return the seconds before the next attempt.

        Raise FetchError if the image is at fault, HostDown if its host is.
        """
        fault = fault_of(error)
        is_busy = fault is Fault.BUSY
        self.attempts += 1
        self.refusals += is_busy
        self.seconds += 0.0 if is_busy else time.monotonic() - self._pace.since
        wait = retry_after(error) or 0.0 if is_busy else 0.0
        if fault is Fault.MACHINE:
            raise fetch_error(error) from error
        if fault is Fault.EXPIRED:
            raise self._outage(error) from error
        if isinstance(error, FetchError | UsageError) or self._is_final(error, fault):
            raise self._final(error) from error
        self.host.failed(self.uri, self._pace.since, is_busy=is_busy)
        if wait:
            self.host.wait(wait)
        delay = 0.0 if wait or not RETRY_DELAYS else self._delay(is_busy=is_busy)
        if verdict := self._verdict(error, fault, wait, delay):
            raise verdict from error
        self.seconds += 0.0 if is_busy else delay
        return delay

    @property
    def _failures(self) -> int:
        return self.attempts - self.refusals

    def _delay(self, *, is_busy: bool) -> float:
        attempts = self.refusals if is_busy else self._failures
        longest = RETRY_DELAYS[min(attempts, len(RETRY_DELAYS)) - 1]
        return longest * random.uniform(0.75, 1.0)

    def _is_final(self, error: Exception, fault: Fault) -> bool:
        if is_http(self.uri) and is_unknown_host(error):
            return self.host.good is None  # else the name servers are at fault
        if is_http(self.uri) and may_be_of_this_machine(error) and not has_any_given("https"):
            return False
        return fault is Fault.FINAL or failure_status(error) in FINAL

    def _final(self, error: Exception) -> FetchError:
        """Return the error of an image that cannot be had; of its host, if it denies all now."""
        failure = fetch_error(error)
        if is_http(self.uri) and is_unknown_host(error):
            return FetchError(Status.NOT_FOUND, str(failure))
        if has_bad_certificate(error):
            is_of_all = self.host.good or not is_http(self.uri)  # it was valid, or is a store's
            return self._outage(error) if is_of_all else failure
        is_new = self.look and self.host.good and self.host.answered_at < self._began
        if failure.status is Status.DENIED and is_new and not self._is_answering():
            return self._outage(error)
        self.host.answered()
        return failure

    def _verdict(
        self, error: Exception, fault: Fault, wait: float, delay: float
    ) -> FetchError | None:
        """Return the error to raise instead of another attempt, if any."""
        host, is_busy = self.host, fault is Fault.BUSY
        is_alone = host.answered_at > self._first or (
            fault is Fault.BROKEN and len(host.failing) < BROKEN_IMAGES
        )
        if is_alone and not (is_busy and wait > LONGEST_WAIT):
            if is_busy:
                return self._refused(error) if self.refusals >= BUSY_ATTEMPTS else None
            is_last = self._failures > len(RETRY_DELAYS) or self.seconds + delay >= FETCH_SECONDS
            return self._failure(error) if is_last else None
        patience = FETCH_SECONDS if self.patience is None else self.patience
        is_patient = host.silent_seconds() + delay < patience and host.waited <= LONGEST_WAIT
        if RETRY_DELAYS and is_patient and not host.trouble:
            return None
        return self._failure(error) if not is_busy and self._is_answering() else self._outage(error)

    def _failure(self, error: Exception) -> FetchError:
        return fetch_error(error, self.seconds)

    def _refused(self, error: Exception) -> HostBusy:
        """Return the error of an image that is left, while the host goes on with others."""
        failure = self._failure(error)
        return HostBusy(self.host.name, str(failure), failure.status)

    def _outage(self, error: Exception) -> HostDown:
        failure = self._failure(error)
        kind = HostBusy if fault_of(error) is Fault.BUSY else HostDown
        down = self.host.give_up(str(failure), kind)
        down.status = failure.status
        return down

    def _is_answering(self) -> bool:
        """Return whether the host still gives what it gave last."""
        host = self.host
        with host.looking:
            if host.answered_at > self._began or host.looked_at > self._began - LOOK_SECONDS:
                return True
            if self.look is None or host.good is None or host.good == self.uri:
                return False
            try:
                self.look(host.good)
            except Exception:  # noqa: BLE001 (whatever it is, the host does not)
                return False
            host.answered()
            host.looked_at = time.monotonic()
            return True


def retried(read: Callable[[Pace], T], uri: str, patience: float | None = None) -> T:
    """Call `read(pace)` on a remote store; retry transient failures until the deadline.

    Other errors, and the last one, become FetchErrors: HostDown if the host is at fault.
    """
    host = host_of(uri)
    tries = Tries(uri, host or Host(uri), patience)
    while True:
        with claimed(tries.host):
            try:
                result = read(tries.begin())
                tries.succeeded()
                return result
            except Exception as error:  # noqa: BLE001 (judged by its kind)
                delay = tries.failed(error)
        time.sleep(delay)


@contextmanager
def claimed(host: Host) -> Iterator[None]:
    """Wait until a host may be asked; HostDown if it is down."""
    while wait := host.claim():
        time.sleep(min(wait, CLAIM_SECONDS))
    try:
        yield
    finally:
        host.release()


def with_retries(container: str, read: Callable[[], T]) -> T:
    """Call `read()` on a container, with retries if it is remote; its errors become FetchErrors."""
    if host_of(container) is None:
        return as_fetch_error(read)
    return retried(lambda _: undamaged(read), container)
