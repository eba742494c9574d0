"""How many requests are in flight at once: more while all goes well, fewer when the server chokes.

As TCP does it: twice as many in each round at first, then one more; half as many after trouble.
"""

import asyncio
import math
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from captioner.openai.client import Trouble

MOST = 32
FIRST = 4
SHORTEST_PAUSE = 0.5  # seconds


class InFlight:
    """The slots for requests; all calls belong to one event loop.

    `limit` is how many may be in flight. Pauses grow to `longest_pause` seconds in an outage.
    """

    def __init__(self, most: int = MOST, longest_pause: float = 10.0) -> None:
        self.limit = float(min(FIRST, most))
        self._most, self._longest_pause = most, longest_pause
        self._is_slow_start = True
        self._active = 0
        self._rounds = 0  # of trouble, since the last reply
        self._troubled_at = self._resume_at = -math.inf
        self._stopped: Exception | None = None
        self._changed = asyncio.Condition()

    def begin(self) -> None:
        """Allow requests again after `stop`."""
        self._stopped = None

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[float]:
        """Wait for a slot and hold it; yield the time. Raise what `stop` was given, a new one."""
        async with self._changed:
            while (seconds := self._wait()) > 0:
                await self._change(seconds)
            if self._stopped:
                raise type(self._stopped)(*self._stopped.args)
            self._active += 1
        try:
            yield time.monotonic()
        finally:
            self._active -= 1
            await self._tell()

    def replied(self) -> None:
        """Note a reply."""
        self._rounds = 0
        step = 1.0 if self._is_slow_start else 1.0 / self.limit
        self.limit = min(self.limit + step, self._most)

    def troubled(self, trouble: Trouble, began: float) -> float:
        """Note the trouble of a request that `began` then; return the seconds until another try.

        The troubles of one round count once. One that says nothing about the next request neither
        lowers the limit nor pauses the others.
        """
        now = time.monotonic()
        if began >= self._troubled_at:
            self._troubled_at = now
            self._rounds += 1
            if trouble.is_busy or trouble.is_unreachable or self._rounds > 1:
                self.limit = max(self.limit / 2, 1.0)
                self._is_slow_start = False
                self._resume_at = max(self._resume_at, now + self._pause())
        if trouble.retry_after:
            wait = trouble.retry_after * random.uniform(1, 1.1)
            self._resume_at = max(self._resume_at, now + wait)
        return max(self._resume_at - now, self._pause())

    async def pause(self, seconds: float) -> None:
        """Wait, but not beyond `stop`."""
        end = time.monotonic() + seconds
        async with self._changed:
            while not self._stopped and (left := end - time.monotonic()) > 0:
                await self._change(left)

    async def stop(self, error: Exception) -> None:
        """Raise an error for all who wait for a slot, until `begin`; end all pauses."""
        self._stopped = error
        await self._tell()

    def _pause(self) -> float:
        longest = SHORTEST_PAUSE * 2 ** min(max(self._rounds - 1, 0), 30)
        return min(longest, self._longest_pause) * random.uniform(0.5, 1)

    def _wait(self) -> float:
        """Return for how many seconds nothing will be free, unless something changes."""
        if self._stopped:
            return 0.0
        if self._active >= int(self.limit):
            return math.inf
        return self._resume_at - time.monotonic()

    async def _change(self, seconds: float) -> None:
        """Wait for a change, but no longer than this."""
        try:
            async with asyncio.timeout(None if seconds == math.inf else seconds):
                await self._changed.wait()
        except TimeoutError:
            pass

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()
