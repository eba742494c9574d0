"""Connections that are used again only while their server sends nothing that was not asked for.

Answers have no names: a second answer to one request would be taken for that to the next request,
and another image would get its caption.
"""

import time
from collections import deque
from typing import Any

import aiohttp

QUIET_SECONDS = 1.0  # in which a connection that is not in use must get nothing, for its host
WATCHED = 4  # connections of a host that wait for this meanwhile; others are closed after use
MOST_IDLE = 128  # connections to all hosts that are not in use: each is an open file
MOST_HOSTS = 10_000  # that are remembered
# Of aiohttp, what is overridden or read here is private. Without these, nothing is used again.
_IS_KNOWN = all(hasattr(aiohttp.TCPConnector, name) for name in ("_get", "_release"))


class QuietConnector(aiohttp.TCPConnector):
    """A connector that trusts a host once a connection to it has been quiet for a while.

    Until then, and after a host has sent what nobody asked for, each request has a connection of
    its own.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(force_close=not _IS_KNOWN, **options)
        self._is_quiet: dict[Any, bool] = {}  # by host, once it is known

    async def _get(self, key: Any, traces: Any) -> Any:
        """Return a connection that can be used again, or None."""
        for protocol, since in self._idle.get(key, ()):
            if _holds_bytes(protocol):
                self._remember(key, False)
                protocol.close()
            elif time.monotonic() - since >= QUIET_SECONDS and protocol.is_connected():
                self._remember(key, self._is_quiet.get(key, True))
        return await super()._get(key, traces) if self._is_quiet.get(key) else None

    def _release(self, key: Any, protocol: Any, *, should_close: bool = False) -> None:
        is_quiet = self._is_quiet.get(key, len(self._idle.get(key, ())) < WATCHED)
        super()._release(key, protocol, should_close=should_close or not is_quiet)
        while sum(map(len, self._idle.values())) > MOST_IDLE:
            self._close_oldest()

    @property
    def _idle(self) -> dict[Any, deque[tuple[Any, float]]]:
        """Connections that are not in use, by host, with the time since when; the oldest first."""
        return getattr(self, "_conns", {})

    def _close_oldest(self) -> None:
        key = min(self._idle, key=lambda each: self._idle[each][0][1])
        protocol, _ = self._idle[key].popleft()
        protocol.close()
        if not self._idle[key]:
            del self._idle[key]

    def _remember(self, key: Any, is_quiet: bool) -> None:
        if len(self._is_quiet) >= MOST_HOSTS:
            self._is_quiet.clear()
        self._is_quiet[key] = is_quiet


def _holds_bytes(protocol: Any) -> bool:
    """Return whether something came while nothing was asked; the end of a connection is nothing."""
    is_odd = protocol.should_close and protocol.is_connected()
    return is_odd or any(getattr(protocol, name, True) for name in ("_buffer", "_tail"))
