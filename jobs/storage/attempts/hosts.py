"""Hosts, as this process knows them: how many requests they bear, when, and whether they are down.

A host is one of HTTP, with its port, or a bucket of a store. Few requests are in flight at first,
one more with each success, and half as many when the host asks for fewer or does not answer.
"""

import math
import random
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field

from captioner.jobs.errors import HostDown
from captioner.jobs.storage.attempts.pace import SLOWEST
from captioner.jobs.storage.uris import is_chain, is_http, is_local, scheme, split_chain

FIRST_IN_FLIGHT = 4
MOST_IN_FLIGHT = 16
MOST_STALLING = 32  # in flight with those that stall
STALL_SECONDS = 5.0  # after which a request without bytes does not count: others may be answered
LONGEST_BACK_OFF = 15.0  # seconds, where the host does not say how long to wait
LONGEST_WAIT = 300.0  # seconds that a host may ask to wait, all in all, before it answers again
LONGEST_PAUSE = 3600.0  # seconds for which a host is not asked, even if it asks to wait for longer
PROBE_SECONDS = 30.0  # before a host that is down is asked again; then twice as long
LONGEST_PROBE_SECONDS = 300.0
FORGET_SECONDS = 120.0  # after which a failure says nothing of later ones
MOST_HOSTS = 10_000  # that are remembered


@dataclass
class _Flight:
    """A request: when it began or last brought bytes, and how many it had brought then."""

    heard_at: float
    size: int = 0


@dataclass
class Host:
    """A host; its methods are thread-safe. Times are those of time.monotonic."""

    name: str
    limit: float = float(FIRST_IN_FLIGHT)
    good: str | None = None  # the last URI whose bytes it gave
    answered_at: float = -math.inf  # when it last said anything about an image, such as 404
    waited: float = 0.0  # seconds that it asked to wait since then
    failing_since: float = math.inf
    trouble: str | None = None  # why it is taken for down
    kind: type[HostDown] = HostDown  # of the trouble
    failing: set[str] = field(default_factory=set)  # URIs that failed since it answered
    looked_at: float = -math.inf  # when it was last seen to give `good` again
    gives_lists: bool = True  # of what it has, as far as is known
    looking: threading.Lock = field(default_factory=threading.Lock)  # held while `good` is read
    _flying: dict[int, _Flight] = field(default_factory=dict)  # by thread
    _calm: float = float(MOST_IN_FLIGHT)  # the limit up to which each success adds one
    _wait_until: float = -math.inf  # as it asked for
    _back_off_until: float = -math.inf
    _failed_at: float = -math.inf
    _round_began: float = -math.inf
    _rounds: int = 0  # of failures, without an answer between them
    _probe_at: float = -math.inf
    _probe_seconds: float = 0.0
    _is_probing: bool = False
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def claim(self) -> float:
        """Claim the right to one request and return 0, or return the seconds to wait before.

        They are infinite if another request must end first. Raise HostDown if the host is down; now
        and then, one request may try whether it still is.
        """
        with self._lock:
            now = time.monotonic()
            if self.trouble and now < self._probe_at:
                raise self.kind(self.name, self.trouble)
            if self._is_probing or self._is_full(now):
                return math.inf
            wait = max(self._wait_until, self._back_off_until) - now
            if wait > 0:
                return wait
            self._is_probing = self.trouble is not None
            self._flying[threading.get_ident()] = _Flight(now)
            return 0.0

    def _is_full(self, now: float) -> bool:
        fresh = sum(now - each.heard_at < STALL_SECONDS for each in self._flying.values())
        return fresh >= int(self.limit) or len(self._flying) >= MOST_STALLING

    @property
    def is_asked(self) -> bool:
        """Whether requests are in flight."""
        return bool(self._flying)

    def heard(self, thread: int, size: int, *, waits: bool) -> None:
        """Note that the request of a thread has brought `size` bytes; or that it `waits` for us.

        Fewer bytes than SLOWEST brings do not keep it from counting as one that stalls.
        """
        with self._lock:
            flight = self._flying.get(thread)
            if flight and (waits or size - flight.size >= SLOWEST * STALL_SECONDS):
                self._flying[thread] = _Flight(time.monotonic(), size)

    def release(self) -> None:
        """Give back the claim of this thread."""
        with self._lock:
            del self._flying[threading.get_ident()]
            self._is_probing = False

    def gave(self, uri: str) -> None:
        """Note that it gave the bytes of an image."""
        with self._lock:
            self.good = uri
            self.answered()
            step = 1.0 if self.limit < self._calm else 1.0 / self.limit
            self.limit = min(self.limit + step, MOST_IN_FLIGHT)

    def answered(self) -> None:
        """Note an answer about an image: the host is at work."""
        with self._lock:
            self.answered_at = time.monotonic()
            self.trouble, self.waited, self._rounds, self._probe_seconds = None, 0.0, 0, 0.0
            self._back_off_until = -math.inf
            self.failing_since = math.inf
            self.failing.clear()

    def failed(self, uri: str, began: float, *, is_busy: bool) -> None:
        """Note a failure of a request that `began` then.

        Requests in flight that fail together count once. A failure beside answers to others says
        nothing of the host, unless it `is_busy`.
        """
        with self._lock:
            now = time.monotonic()
            self.failing.add(uri)
            is_news = now - max(self._failed_at, self._wait_until) > FORGET_SECONDS
            if self.failing_since == math.inf or is_news:
                self.failing_since, self.waited = began, 0.0
            self._failed_at = now
            if began < self._round_began or (self.answered_at >= began and not is_busy):
                return
            self._round_began = now
            self._rounds += 1
            self.limit = self._calm = max(self.limit / 2, 1.0)
            if self._rounds > 1:
                delay = min(2.0 ** min(self._rounds - 2, 9), LONGEST_BACK_OFF)
                self._back_off_until = now + delay * random.uniform(0.5, 1.0)

    def may_stall(self) -> bool:
        """Return whether requests fail or wait, and none was answered meanwhile."""
        with self._lock:
            heard_at = min((each.heard_at for each in self._flying.values()), default=math.inf)
            is_slow = time.monotonic() - heard_at > STALL_SECONDS
            return is_slow or self.failing_since < math.inf

    def silent_seconds(self) -> float:
        """Return for how long it has given no answer, less what it asked to wait."""
        with self._lock:
            ahead = max(self._wait_until - time.monotonic(), 0.0)
            return time.monotonic() - self.failing_since - self.waited + ahead

    def wait(self, seconds: float) -> None:
        """Ask nothing for as long as the host wishes, and a little longer: others wait, too."""
        with self._lock:
            now, seconds = time.monotonic(), min(seconds, LONGEST_PAUSE)
            until = now + seconds + random.uniform(0.0, min(1.0, seconds / 10))
            if until > self._wait_until:
                self.waited += until - max(now, self._wait_until)
                self._wait_until = until

    def give_up(self, trouble: str, kind: type[HostDown] = HostDown) -> HostDown:
        """Take the host for down for a while; return the error of the images that it has."""
        with self._lock:
            if self.trouble and time.monotonic() < self._probe_at:
                return kind(self.name, trouble)
            self.trouble, self.kind = trouble, kind
            self._probe_seconds = min(
                max(2 * self._probe_seconds, PROBE_SECONDS), LONGEST_PROBE_SECONDS
            )
            self._probe_at = max(time.monotonic() + self._probe_seconds, self._wait_until)
            return kind(self.name, trouble)

    def suspect(self, trouble: str) -> None:
        """Take the host for down if the next request fails, unless it has answered here."""
        with self._lock:
            if self.answered_at == -math.inf and self.trouble is None:
                self.trouble, self._probe_at = trouble, time.monotonic()


_hosts: OrderedDict[str, Host] = OrderedDict()  # the last asked for at the end
_hosts_lock = threading.Lock()


def host_of(uri: str) -> Host | None:
    """Return the host of a URL; None if it lies on this machine."""
    name = host_name(uri)
    return None if name is None else _named(name)


def _named(name: str) -> Host:
    """Return a host; forget those that nobody asked for lately, beyond MOST_HOSTS."""
    with _hosts_lock:
        host = _hosts.setdefault(name, Host(name))
        _hosts.move_to_end(name)
        if len(_hosts) > MOST_HOSTS:
            oldest = next((each for each in _hosts.values() if not each.is_asked), host)
            del _hosts[oldest.name]
        return host


def has_any_given(protocol: str) -> bool:
    """Return whether a host of this protocol has given an image."""
    with _hosts_lock:
        return any(
            host.good is not None and name.startswith(f"{protocol}://")
            for name, host in _hosts.items()
        )


def host_name(uri: str) -> str | None:
    """Return the scheme with the host and port of HTTP, or the bucket of a store."""
    while is_chain(uri):
        uri = split_chain(uri)[1].removeprefix("::")
    if is_local(uri):
        return None
    place = uri.partition("://")[2].partition("/")[0]
    if is_http(uri):
        place = place.partition("?")[0].partition("#")[0].rpartition("@")[2].lower()
    return f"{scheme(uri)}://{place}"


def suspect(troubles: Mapping[str, str]) -> None:
    """Pass on which hosts other processes take for down, and why."""
    for name, trouble in troubles.items():
        _named(name).suspect(trouble)


def forget_hosts() -> None:
    """Forget all hosts, as when another run begins."""
    with _hosts_lock:
        _hosts.clear()
