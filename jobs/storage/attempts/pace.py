"""How fast an answer must come: large images may take long, but not for ever."""

import time
from dataclasses import dataclass, field

SLOWEST = 1000  # bytes/s, averaged over the seconds that a pace allows
WHOLE_SECONDS = 600.0  # for an answer as a whole, and ...
WHOLE_RATE = 64 * 1024  # ... a second more for each such number of bytes that have come


@dataclass
class Pace:
    """How an answer comes along; it is too slow `seconds` after the last progress.

    Progress is as many bytes as SLOWEST brings in these seconds. The answer is too slow, too, if it
    takes more than `whole` seconds, and one for each WHOLE_RATE bytes: a server that keeps dripping
    holds up nobody for hours, while many readers may share a slow line. Times are those of
    time.monotonic.
    """

    seconds: float
    whole: float = field(default_factory=lambda: WHOLE_SECONDS)
    size: int = 0  # bytes that have come
    _size_then: int = 0
    _began: float = 0.0
    _progressed: float = 0.0

    def __post_init__(self) -> None:
        self.restart()

    @property
    def until(self) -> float:
        """The time at which the answer is too slow, if no more bytes come."""
        return min(self._progressed + self.seconds, self._until_as_whole)

    @property
    def _until_as_whole(self) -> float:
        return self._began + self.whole + self.size / WHOLE_RATE

    @property
    def _is_slow_as_whole(self) -> bool:
        return self._until_as_whole <= self._progressed + self.seconds

    @property
    def since(self) -> float:
        """When the time began that counts: with the last progress, or with a slow answer."""
        return self._began if self._is_slow_as_whole else self._progressed

    @property
    def fresh(self) -> int:
        """The bytes that have come since the last progress."""
        return self.size - self._size_then

    def restart(self) -> None:
        """Count the time from now on."""
        self._began = self._progressed = time.monotonic()

    def received(self, size: int) -> None:
        """Note bytes that came."""
        self.size += size
        if self.fresh >= SLOWEST * self.seconds:
            self._progressed, self._size_then = time.monotonic(), self.size

    def waited(self, seconds: float) -> None:
        """Note a time in which nothing was read, for reasons of our own."""
        self._began += seconds
        self._progressed += seconds

    def check(self) -> None:
        """Raise TimeoutError if the answer is too slow."""
        if time.monotonic() > self.until:
            raise TimeoutError(self.description())

    def description(self) -> str:
        """Return what an answer that was too slow brought."""
        if not self.size:
            return f"no answer within {self.seconds:.0f} s"
        if self._is_slow_as_whole:
            took = time.monotonic() - self._began
            return f"the answer came too slowly: {self.size} bytes in {took:.0f} s"
        return f"the answer came too slowly: {self.fresh} bytes in {self.seconds:.0f} s"
