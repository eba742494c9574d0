"""The server of `captioner review` in a thread, and requests to it."""

import asyncio
import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from queue import Queue
from typing import Any
from urllib.parse import urlsplit

from captioner.jobs.publish.review.page.server import served
from captioner.jobs.publish.review.page.session import Session
from captioner.jobs.publish.review.queue import scope_of
from captioner.jobs.table.layout import OutFolder
from tests.support.commands import GIVE_UP_SECONDS


@dataclass(frozen=True)
class Answer:
    """An answer of the server, whatever its status."""

    status: int
    headers: Any
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Reviewing:
    """A page that is served at a URL."""

    url: str

    @property
    def origin(self) -> str:
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc}"

    def get(self, path: str = "", **headers: str) -> Answer:
        return _answer(urllib.request.Request(self.url + path, headers=headers))

    def post(self, path: str, values: Any, **headers: str) -> Answer:
        """Post an object, or bytes as they are, as the page does: with its own origin."""
        data = values if isinstance(values, bytes) else json.dumps(values).encode()
        headers = {"Origin": self.origin, "Content-Type": "application/json"} | headers
        return _answer(urllib.request.Request(self.url + path, data, headers))

    def queue(self, window: str = "w") -> Any:
        return self.get(f"api/queue?window={window}").json

    def names(self, window: str = "w") -> list[str]:
        return [item["name"] for item in self.queue(window)["items"]]

    def decide(self, item: Any, decision: str, text: str = "", window: str = "w") -> Answer:
        values = {"window": window, "item": item["id"], "decision": decision, "text": text}
        return self.post("api/decisions", values)


def eventually(holds: Callable[[], bool]) -> None:
    """Wait until something holds that others bring about."""
    give_up = time.monotonic() + GIVE_UP_SECONDS
    while not holds():
        assert time.monotonic() < give_up
        time.sleep(0.1)


def _answer(request: urllib.request.Request) -> Answer:
    try:
        with urllib.request.urlopen(request) as response:
            return Answer(response.status, response.headers, response.read())
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code, error.headers, error.read())


@contextmanager
def reviewing(
    out: OutFolder, reviewer: str = "ann", where: str | None = None
) -> Iterator[Reviewing]:
    """Serve the review of a table, as `captioner review` does."""
    started: Queue[Any] = Queue()

    async def serve() -> None:
        stopped = asyncio.Event()
        async with served(Session(scope_of(out, where), reviewer), "127.0.0.1", 0) as url:
            started.put((url, asyncio.get_running_loop(), stopped))
            await stopped.wait()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    url, loop, stopped = started.get(timeout=GIVE_UP_SECONDS)
    try:
        yield Reviewing(url)
    finally:
        loop.call_soon_threadsafe(stopped.set)
        thread.join()
