"""Connections that are used again only while their server sends nothing that was not asked for.

Answers have no names: a second answer to one request would be taken for that to the next request,
and another image would get its caption.
"""

import time
from typing import Any

import aiohttp

QUIET_SECONDS = 1.0  # in which a connection that is not in use must get nothing, for its host
WATCHED = 4  # connections of a host that wait for this meanwhile; others are closed after use
MOST_HOSTS = 10_000  # that are remembered


class QuietConnector(aiohttp.TCPConnector):
    """A connector that trusts a host once a connection to it has been quiet for a while.

    Until then, and after a host has sent what nobody asked for, each request has a connection of
    its own.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._is_quiet: dict[Any, bool] = {}  # by host, once it is known

    async def _get(self, key: Any, traces: Any) -> Any:
        """Return a connection that can be used again, or None."""
        for protocol, since in self._conns.get(key, ()):
            if _holds_bytes(protocol):
                self._remember(key, False)
                protocol.close()
            elif time.monotonic() - since >= QUIET_SECONDS and protocol.is_connected():
                self._remember(key, self._is_quiet.get(key, True))
        return await super()._get(key, traces) if self._is_quiet.get(key) else None

    def _release(self, key: Any, protocol: Any, *, should_close: bool = False) -> None:
        is_quiet = self._is_quiet.get(key, len(self._conns.get(key, ())) < WATCHED)
        super()._release(key, protocol, should_close=should_close or not is_quiet)

    def _remember(self, key: Any, is_quiet: bool) -> None:
        if len(self._is_quiet) >= MOST_HOSTS:
            self._is_quiet.clear()
        self._is_quiet[key] = is_quiet


def _holds_bytes(protocol: Any) -> bool:
    """Return whether something came while nothing was asked; the end of a connection is nothing."""
    is_odd = protocol.should_close and protocol.is_connected()
    return bool(protocol._buffer or protocol._tail or is_odd)
