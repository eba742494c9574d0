"""The server of the page: `captioner review OUT`."""

import asyncio
import secrets
import signal
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application

from captioner.jobs.errors import UsageError
from captioner.jobs.publish.review.page.handlers import (
    ASSETS,
    SHARED_ASSETS,
    AssetHandler,
    DecisionHandler,
    NothingHere,
    PageHandler,
    PictureHandler,
    QueueHandler,
    Site,
    SkipHandler,
    UndoHandler,
)
from captioner.jobs.publish.review.page.session import Session
from captioner.jobs.publish.review.queue import Filters, Scope

TOKEN_BYTES = 24
READ_BYTES = 16 * 2**20  # of a request; the connection of a longer one is closed
ASSET = r"(?P<path>[\w-]+\.(?:css|js|svg))"


def review_in_browser(
    scope: Scope, reviewer: str, host: str, port: int, opened: Callable[[str], None]
) -> int:
    """Serve the page until Ctrl-C; return how many decisions were saved.

    `opened` is called with the page's URL, which holds a secret. Port 0 is any that is free. Raise
    UsageError if the server cannot be reached at this host and port.
    """
    return asyncio.run(_until_interrupted(scope, reviewer, host, port, opened))


async def _until_interrupted(
    scope: Scope, reviewer: str, host: str, port: int, opened: Callable[[str], None]
) -> int:
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, stopped.set)
    session = Session(scope, reviewer)
    async with served(session, host, port) as url:
        opened(url)
        await stopped.wait()
    return session.saved


@asynccontextmanager
async def served(session: Session, host: str, port: int) -> AsyncIterator[str]:
    """Serve the page of a session; yield its URL. Decisions under way are saved in the end."""
    token = secrets.token_urlsafe(TOKEN_BYTES)
    sockets = _bound(host, port)
    server = HTTPServer(_application(Site(session, token, host)), max_body_size=READ_BYTES)
    server.add_sockets(sockets)
    session.queues.begin(Filters())  # while the browser starts
    try:
        yield f"http://{_address(host)}:{sockets[0].getsockname()[1]}/{token}/"
    finally:
        server.stop()
        await session.finish()
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(server.close_all_connections(), 1)


def _bound(host: str, port: int) -> list[socket.socket]:
    if not 0 <= port < 2**16:
        raise UsageError(f"port {port} does not exist: give one from 1 to 65535, or 0 for any")
    try:
        return bind_sockets(port, host)
    except OSError as error:
        reason = error.strerror or error
        raise UsageError(f"cannot serve at {host}, port {port or 'any'}: {reason}") from error


def _address(host: str) -> str:
    """Return a host as it is written in a URL; where it is every address, this machine's name."""
    if host in ("", "0.0.0.0", "::"):
        return socket.gethostname()
    return f"[{host}]" if ":" in host else host


def _application(site: Site) -> Application:
    token = "/(?P<token>[^/]+)"
    about: dict[str, Any] = {"site": site}
    handlers = {
        "/": PageHandler,
        "/api/queue": QueueHandler,
        "/api/decisions": DecisionHandler,
        "/api/skip": SkipHandler,
        "/api/undo": UndoHandler,
        "/pictures/(?P<name>[0-9a-f]+)": PictureHandler,
    }
    assets = [
        (f"{token}/{name}/{ASSET}", AssetHandler, about | {"path": folder})
        for name, folder in {"assets": str(ASSETS), "shared": str(SHARED_ASSETS)}.items()
    ]
    return Application(
        [*((token + path, handler, about) for path, handler in handlers.items()), *assets],
        default_handler_class=NothingHere,
        default_handler_args=about,
        log_function=lambda _: None,  # the address has the token
        compress_response=True,
    )
