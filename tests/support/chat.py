"""A server that speaks the chat API (chat_server.py), for tests."""

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent.parent


@dataclass(frozen=True)
class Chat:
    """A chat server at work."""

    port: int

    @property
    def url(self) -> str:
        """The base URL of its API."""
        return f"http://127.0.0.1:{self.port}/v1"

    def behave(self, *schedule: str, **values: Any) -> None:
        """Set the faults of the next requests, the fault `always` after them, and the latency."""
        self._open("behave", json.dumps({"schedule": schedule, **values}).encode())

    def requests(self) -> list[dict[str, Any]]:
        """Return all requests so far."""
        return json.loads(self._open("requests"))

    def _open(self, page: str, data: bytes | None = None) -> bytes:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/{page}", data) as answer:
            return answer.read()


@contextmanager
def serving(*options: object) -> Iterator[Chat]:
    """Run a chat server as a process, with options of its command line."""
    line: Sequence[str] = ["-m", "tests.support.chat_server", *map(str, options)]
    with subprocess.Popen(
        [sys.executable, *line], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin and process.stdout
        try:
            yield Chat(int(process.stdout.readline()))
        finally:
            process.kill()


@pytest.fixture
def chat() -> Iterator[Chat]:
    """Yield a chat server that answers every request."""
    with serving() as server:
        yield server
