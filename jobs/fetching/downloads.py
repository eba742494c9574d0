"""Images from other hosts, fetched ahead by threads that only wait.

A thread makes one attempt at a time. An image that must be tried again waits in the queue of its
host, and no host has more than half of the threads: where one stalls, the others go on. Of a host
that stalls, any image may be next, for others may be better off than the first.
"""

import heapq
import math
import random
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial

from captioner.jobs.errors import FetchError, HostDown
from captioner.jobs.fetching.fetch import look_at, read_remote, too_large
from captioner.jobs.fetching.held_bytes import HeldBytes
from captioner.jobs.storage.attempts.hosts import MOST_STALLING, Host, host_of
from captioner.jobs.storage.attempts.retry import Tries
from captioner.jobs.storage.failures import fetch_error, undamaged

THREADS = 2 * MOST_STALLING
LOOK_SECONDS = 0.5  # between two looks at a host that other threads use, too
Arrived = Callable[[int], object]  # called with the number of an image


@dataclass(order=True)
class _Wish:
    """An image to fetch from a time on, by time.monotonic: first attempts before others."""

    ready_at: float
    number: int
    tries: Tries = field(compare=False)


class Downloads:
    """The images at some URLs, by number; the methods are thread-safe."""

    def __init__(self, uris: Mapping[int, str], max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._numbers = uris.keys()
        self._queues: dict[str, tuple[Host, list[_Wish]]] = {}
        self._room = 0  # images that may be begun and not `used` yet
        self._begun = 0
        self._arrived: dict[int, bytes | FetchError] = {}
        self._on_their_way: dict[int, None] = {}  # in the order of their first attempts
        self._held = HeldBytes()
        self._changed = threading.Condition()
        self._is_closed = False
        self._broken: Exception | None = None
        for number, uri in sorted(uris.items()):
            self._add(number, uri)

    def __contains__(self, number: int) -> bool:
        return number in self._numbers

    def __len__(self) -> int:
        return len(self._numbers)

    def _add(self, number: int, uri: str) -> None:
        host = host_of(uri)
        assert host is not None
        _, queue = self._queues.setdefault(host.name, (host, []))
        queue.append(_Wish(0.0, number, Tries(uri, host, look=look_at)))

    def start(
        self,
        arrived: Arrived,
        ahead: int,
        measure: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        """Begin to fetch, and call `arrived` for each image once `take` has it.

        At most `ahead` images wait to be `used`.
        """
        self._tell, self._measure, self._room = arrived, measure, ahead + THREADS
        for _ in range(min(THREADS, len(self))):
            threading.Thread(target=self._work, daemon=True).start()

    def take(self, number: int) -> bytes:
        """Return the bytes of an image that has arrived, once; raise FetchError if it failed."""
        self._held.forget(number)
        found = self._arrived.pop(number)
        if isinstance(found, FetchError):
            raise found
        return found

    @property
    def oldest(self) -> int | None:
        """The image that is on its way for longest."""
        with self._changed:
            return next(iter(self._on_their_way), None)

    def used(self) -> None:
        """Make room for another image."""
        with self._changed:
            self._begun -= 1
            self._changed.notify()

    def close(self) -> None:
        """Fetch nothing more; what is on its way is dropped."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def check(self) -> None:
        """Raise the unexpected error that ended a thread, if any: an image may never arrive."""
        if self._broken:
            raise self._broken

    def _work(self) -> None:
        try:
            while wish := self._next():
                self._attempt(wish)
        except Exception as error:  # noqa: BLE001 (`check` raises it)
            self._broken = error

    def _next(self) -> _Wish | None:
        """Wait for an image that can be fetched now; None if this was closed."""
        with self._changed:
            while not self._is_closed:
                wait = math.inf
                if self._begun < self._room and self._held.has_room:
                    found = self._find()
                    if isinstance(found, _Wish):
                        self._begun += 1
                        return found
                    wait = found
                self._changed.wait(min(wait, LOOK_SECONDS))
            return None

    def _find(self) -> _Wish | float:
        """Return an image whose host can be asked now, or the seconds until there may be one."""
        soonest = math.inf
        for name, (host, queue) in list(self._queues.items()):
            wait = self._wait_for(host, queue)
            if wait == 0.0:
                self._queues[name] = self._queues.pop(name)  # the other hosts are next
                return _take(host, queue)
            soonest = min(soonest, wait)
        return soonest

    def _wait_for(self, host: Host, queue: list[_Wish]) -> float:
        """Claim a host for the first image in its queue; return the seconds to wait before."""
        if not queue:
            return math.inf
        wait = queue[0].ready_at - time.monotonic()
        try:
            return max(wait, 0.0) or host.claim()
        except HostDown as error:
            while queue:
                self._begun += 1
                self._deliver(heapq.heappop(queue).number, error)
            return math.inf

    def _attempt(self, wish: _Wish) -> None:
        """Make one attempt at an image, for which its host was claimed."""
        tries = wish.tries
        with self._changed:
            self._on_their_way.setdefault(wish.number)
        found: bytes | FetchError
        try:
            found = self._read(wish.number, tries)
            tries.succeeded()
        except Exception as error:  # noqa: BLE001 (judged by its kind)
            try:
                delay = tries.failed(error)
            except Exception as failure:  # noqa: BLE001 (no image may be lost)
                found = fetch_error(failure)
            else:
                self._again(wish, delay)
                return
        finally:
            tries.host.release()
        with self._changed:
            self._deliver(wish.number, found)
            self._changed.notify()  # the host may bear more now

    def _read(self, number: int, tries: Tries) -> bytes | FetchError:
        size, pace = self._max_bytes + 1, tries.begin()
        with self._measure():
            allow = partial(self._allow, number, tries.host, threading.get_ident())
            data = undamaged(lambda: read_remote(tries.uri, size, pace, allow))
        return data if len(data) < size else too_large(self._max_bytes)

    def _allow(self, number: int, host: Host, thread: int, size: int) -> bool:
        is_allowed = self._held.allow(number, size)
        host.heard(thread, size, waits=not is_allowed)
        return is_allowed

    def _again(self, wish: _Wish, delay: float) -> None:
        self._held.forget(wish.number)
        wish.ready_at = time.monotonic() + delay if delay else 0.0
        with self._changed:
            self._begun -= 1
            heapq.heappush(self._queues[wish.tries.host.name][1], wish)
            self._changed.notify()

    def _deliver(self, number: int, found: bytes | FetchError) -> None:
        self._on_their_way.pop(number, None)
        if not self._is_closed:
            self._arrived[number] = found
            self._tell(number)


def _take(host: Host, queue: list[_Wish]) -> _Wish:
    """Remove the next image from a queue: the first one, or any new one if the host may stall."""
    if queue[0].tries.attempts or not host.may_stall():
        return heapq.heappop(queue)
    place = random.choice([n for n, wish in enumerate(queue) if not wish.tries.attempts])
    wish, queue[place] = queue[place], queue[-1]
    queue.pop()
    heapq.heapify(queue)
    return wish
