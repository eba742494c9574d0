"""Another user of the machine, who tries every door of a run: `python -m tests.support.strangers`.

The arguments are ports; it prints each one that answers, and how.
"""

import asyncio
import os
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from http.client import HTTPException

import psutil
from distributed.comm import connect
from distributed.security import Security

NOBODY = 65534
SECONDS = 3.0
PAGES = ("", "health", "metrics", "json/counts.json", "info/main/workers.html")


def listening_ports(process: psutil.Process) -> list[int]:
    """Return the TCP ports on which a process and its children listen."""
    family = [process, *process.children(recursive=True)]
    sockets = [each for one in family for each in one.net_connections("tcp")]
    return sorted({each.laddr.port for each in sockets if each.status == psutil.CONN_LISTEN})


async def _speaks_dask(port: int, protocol: str, security: Security) -> bool:
    """Return whether a server of Dask answers; it would then run code, too."""
    arguments = security.get_connection_args("client")
    try:
        comm = await connect(f"{protocol}://127.0.0.1:{port}", timeout=SECONDS, **arguments)
        await comm.write({"op": "identity", "reply": True})
        return bool(await asyncio.wait_for(comm.read(), SECONDS))
    except (OSError, TimeoutError, ValueError):
        return False


def _pages(port: int) -> Iterator[str]:
    for page in PAGES:
        url = f"http://127.0.0.1:{port}/{page}"
        with suppress(OSError, HTTPException), urllib.request.urlopen(url, timeout=1):
            yield page


async def _try_doors(ports: list[int]) -> None:
    for protocol, security in (("tcp", Security()), ("tls", Security.temporary())):
        tries = {
            asyncio.create_task(_speaks_dask(port, protocol, security)): port for port in ports
        }
        done, _ = await asyncio.wait(tries, timeout=3 * SECONDS)  # a refused one may never close
        print(*(f"{protocol}:{tries[each]}" for each in done if each.result()))
    print(*(f"http:{port}/{page}" for port in ports for page in _pages(port)), flush=True)
    os._exit(0)


if __name__ == "__main__":
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)
    asyncio.run(_try_doors([int(port) for port in sys.argv[1:]]))
