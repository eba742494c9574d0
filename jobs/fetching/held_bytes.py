"""How many bytes of images are in memory, fetched or on their way, before they are decoded."""

import threading
import time

MOST_BYTES = 256 * 1024 * 1024
TURN_SECONDS = 10.0  # after which the one that goes on leaves that to another, unless ...
TURN_BYTES = 1024 * 1024  # ... it has brought this


class HeldBytes:
    """The bytes held for each image. Beyond MOST_BYTES, only one image at a time goes on."""

    def __init__(self) -> None:
        self._sizes: dict[int, int] = {}
        self._total = 0
        self._leader: int | None = None  # which goes on in any case, so that all can
        self._turn_ends, self._size_then = 0.0, 0
        self._lock = threading.Lock()

    def allow(self, number: int, size: int) -> bool:
        """Note the bytes that an image has now; return whether it may have more."""
        with self._lock:
            self._total += size - self._sizes.get(number, 0)
            self._sizes[number] = size
            if self._total < MOST_BYTES:
                return True
            if self._leader is None or time.monotonic() > self._turn_ends:
                self._begin_turn(number)
            return self._leader == number

    def _begin_turn(self, number: int) -> None:
        """Let the leader go on, or another one if it is too slow to hold up all others."""
        if self._leader is None or self._sizes[self._leader] - self._size_then < TURN_BYTES:
            self._leader = number
        self._turn_ends = time.monotonic() + TURN_SECONDS
        self._size_then = self._sizes[self._leader]

    @property
    def has_room(self) -> bool:
        """Whether another image may be begun: one that waits long is cut off by its server."""
        return self._total < MOST_BYTES / 2

    def forget(self, number: int) -> None:
        """Note that an image is decoded, or failed."""
        with self._lock:
            self._total -= self._sizes.pop(number, 0)
            if self._leader == number:
                self._leader = None
