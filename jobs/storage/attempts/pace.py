"""How fast an answer must come: large images may take long, but not for ever."""

import time
from dataclasses import dataclass, field

SLOWEST = 1000  # bytes/s, averaged over the seconds that a pace allows


@dataclass
class Pace:
    """How an answer comes along; it is too slow `seconds` after the last progress.

    Progress is as many bytes as SLOWEST brings in these seconds. Times are those of time.monotonic.
    """

    seconds: float
    since: float = field(default_factory=time.monotonic)  # the last progress
    size: int = 0  # bytes that have come
    _size_then: int = 0

    @property
    def until(self) -> float:
        """The time at which the answer is too slow, if no more bytes come."""
        return self.since + self.seconds

    @property
    def fresh(self) -> int:
        """The bytes that have come since the last progress."""
        return self.size - self._size_then

    def restart(self) -> None:
        """Count the time from now on."""
        self.since = time.monotonic()

    def received(self, size: int) -> None:
        """Note bytes that came."""
        self.size += size
        if self.fresh >= SLOWEST * self.seconds:
            self.since, self._size_then = time.monotonic(), self.size

    def waited(self, seconds: float) -> None:
        """Note a time in which nothing was read, for reasons of our own."""
        self.since += seconds

    def check(self) -> None:
        """Raise TimeoutError if the answer is too slow."""
        if time.monotonic() > self.until:
            raise TimeoutError(self.description())

    def description(self) -> str:
        """Return what an answer that was too slow brought."""
        if not self.size:
            return f"no answer within {self.seconds:.0f} s"
        return f"the answer came too slowly: {self.fresh} bytes in {self.seconds:.0f} s"
