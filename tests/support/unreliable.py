"""An HTTP server of small photographs that limits, stalls, fails or closes connections."""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.support.photographs import photograph
from tests.support.servers import POLL_SECONDS


class UnreliableServer(ThreadingHTTPServer):
    """A server whose first folder says how it answers, and whose attributes change that for all.

    /ok/7.jpg is a photograph, /mute/ is silence, /drip/ a byte every 50 ms, /slow/ 150 of them
    every 0.15 s, /cut/ half of one, /status/500/ an error, with `retry_after` if that is set.
    `down` is the folder by which everything is answered instead. `limit` requests are answered in
    `window` seconds, and others get 429 with Retry-After.
    """

    daemon_threads = True
    request_queue_size = 256

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.down: str | None = None
        self.limit, self.window, self.date = 10**9, 1.0, False
        self.latency = 0.0
        self.retry_after: str | None = None
        self.requests: Counter[str] = Counter()
        self.refused = self.in_flight = self.peak = 0
        self.stopped = threading.Event()
        self.lock = threading.Lock()
        self._began, self._count = 0.0, 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def wait(self) -> int | None:
        """Return the seconds to ask for if the limit is reached; count the request."""
        with self.lock:
            now = time.time()
            if now - self._began >= self.window:
                self._began, self._count = now, 0
            self._count += 1
            if self._count <= self.limit:
                return None
            self.refused += 1
            return int(self._began + self.window - now) + 1

    def handle_error(self, *_: object) -> None:
        pass


class _Handler(BaseHTTPRequestHandler):
    server: UnreliableServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        server = self.server
        with server.lock:
            server.requests[self.path] += 1
            server.in_flight += 1
            server.peak = max(server.peak, server.in_flight)
        try:
            time.sleep(server.latency)
            self._answer()
        except OSError:
            self.close_connection = True
        finally:
            with server.lock:
                server.in_flight -= 1

    def _answer(self) -> None:
        kind, _, rest = (self.server.down or self.path[1:]).partition("/")
        wait = self.server.wait()
        if wait is not None:
            self._send(429, b"", {"Retry-After": self._as_header(wait)})
        elif kind == "status":
            code = rest.partition("/")[0]
            headers = {"Retry-After": self.server.retry_after} if self.server.retry_after else {}
            self._send(int(code), b"", headers)
        elif kind == "mute":
            self.server.stopped.wait()
            self.close_connection = True
        elif kind == "reset":
            self.close_connection = True
        else:
            self._send_photograph(kind)

    def _as_header(self, wait: int) -> str:
        return self.date_time_string(time.time() + wait) if self.server.date else str(wait)

    def _send_photograph(self, kind: str) -> None:
        digits = "".join(filter(str.isdigit, self.path.rpartition("/")[2])) or "0"
        body = photograph(int(digits))
        if kind == "ok":
            self._send(200, body)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if kind == "cut":
            self.wfile.write(body[: len(body) // 2])
            self.close_connection = True
            return
        size, pause = (150, 0.15) if kind == "slow" else (1, 0.05)
        for position in range(0, len(body), size):
            self.wfile.write(body[position : position + size])
            if self.server.stopped.wait(pause):
                return

    def _send(self, code: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(code)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def unreliable_server() -> Iterator[UnreliableServer]:
    """Run such a server in this process."""
    with UnreliableServer() as server:
        threading.Thread(target=server.serve_forever, args=(POLL_SECONDS,), daemon=True).start()
        yield server
        server.stopped.set()
        server.shutdown()


@pytest.fixture
def unreliable(local_servers: None) -> Iterator[UnreliableServer]:
    """Yield a server that answers every request until it is told otherwise."""
    with unreliable_server() as server:
        yield server
