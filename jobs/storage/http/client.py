"""The HTTP client of fsspec, which keeps to the rules of a job (access.py)."""

import asyncio
import os
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver

from captioner.jobs.storage.attempts.hosts import MOST_STALLING
from captioner.jobs.storage.http.access import access_rules
from captioner.jobs.storage.http.connections import QuietConnector
from captioner.jobs.storage.http.unpacked import UnpackedResponse

ANSWER_SECONDS = 120.0  # until an answer begins: aiohttp would wait while any byte comes
# asyncio itself would look up few names at a time, and those of dead hosts take long.
_LOOKUPS = ThreadPoolExecutor(2 * MOST_STALLING, "lookup")


class _Resolver(AbstractResolver):
    """The default resolver, whose private addresses count only for hosts that are allowed."""

    def __init__(self) -> None:
        self._inner = aiohttp.DefaultResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[Any]:
        try:
            found = await self._inner.resolve(host, port, family)
        except OSError:
            os.close(os.open(os.devnull, os.O_RDONLY))  # or no name exists, for want of open files
            raise
        for each in found:
            access_rules().check_address(host, port, each["host"])
        return found

    async def close(self) -> None:
        await self._inner.close()


async def _keep_rules(request: Any, send: Any) -> Any:
    """Send a request, or one that follows a redirect, as far as the rules allow it."""
    url, rules = request.url, access_rules()
    rules.check_host(url.raw_host, url.port)  # the resolver is not asked about addresses
    request.headers["Accept-Encoding"] = "identity"
    request.headers.update(rules.headers_of(url.scheme, url.raw_host, url.port))
    async with asyncio.timeout(ANSWER_SECONDS):
        return await send(request)


async def guarded_client(**options: Any) -> aiohttp.ClientSession:
    """Return an aiohttp session that keeps to the rules, for fsspec's `get_client`."""
    asyncio.get_running_loop().set_default_executor(_LOOKUPS)
    return aiohttp.ClientSession(
        connector=QuietConnector(resolver=_Resolver()),
        middlewares=(_keep_rules,),
        response_class=UnpackedResponse,
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        **options,
    )
