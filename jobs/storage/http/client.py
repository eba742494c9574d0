"""The HTTP client of fsspec, which keeps to the rules of a job (access.py)."""

import asyncio
import socket
from typing import Any

from captioner.jobs.storage.http.access import access_rules

ANSWER_SECONDS = 120.0  # until an answer begins: aiohttp would wait while any byte comes


async def guarded_client(**options: Any) -> Any:
    """Return an aiohttp session that keeps to the rules, for fsspec's `get_client`."""
    import aiohttp
    from aiohttp.abc import AbstractResolver

    class Resolver(AbstractResolver):
        """The default resolver, whose private addresses count only for hosts that are allowed."""

        def __init__(self) -> None:
            self.inner = aiohttp.DefaultResolver()

        async def resolve(
            self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
        ) -> list[Any]:
            found = await self.inner.resolve(host, port, family)
            for each in found:
                access_rules().check_address(host, port, each["host"])
            return found

        async def close(self) -> None:
            await self.inner.close()

    async def keep_rules(request: Any, send: Any) -> Any:  # for each redirect, too
        url, rules = request.url, access_rules()
        rules.check_host(url.raw_host, url.port)  # the resolver is not asked about addresses
        request.headers["Accept-Encoding"] = "identity"  # aiohttp misses the end of a cut gzip
        request.headers.update(rules.headers_of(url.scheme, url.raw_host, url.port))
        async with asyncio.timeout(ANSWER_SECONDS):
            return await send(request)

    connector = aiohttp.TCPConnector(resolver=Resolver())
    return aiohttp.ClientSession(connector=connector, middlewares=(keep_rules,), **options)
