"""A proxy before an HTTP or S3 server, which fails for a while in one of many ways."""

import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException, HTTPResponse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from random import Random
from typing import Any

STATUSES = {"500": "InternalError", "503": "ServiceUnavailable", "slow down": "SlowDown"}
FAILURES = (  # how a request may fail; "refused" fails every one
    *STATUSES,
    "reset",  # the connection ends before the server has seen the request
    "lost",  # it ends after the server has done what was asked
    "done, but 500",  # an error, although the server has done what was asked
    "cut",  # it ends in the middle of the answer
    "stall",  # no answer, then the end
    "refused",
)
HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length"}
ERROR = '<?xml version="1.0"?><Error><Code>{}</Code><Message>failed</Message></Error>'
LINGER = struct.pack("ii", 1, 0)  # so that closing a socket resets the connection


class FaultyProxy:
    """A proxy for the server at a port of this machine; `latency` in seconds, of each request."""

    def __init__(self, target: int, latency: float = 0.0) -> None:
        self.target, self.latency = target, latency
        self.failure, self.share = "", 1.0
        self.over = threading.Event()
        self.dice = Random(0)
        self.server = _Server(self, 0)
        self.port: int = self.server.server_port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @contextmanager
    def failing(self, failure: str, share: float) -> Iterator[None]:
        """Let this share of all requests fail meanwhile."""
        self.over.clear()
        self.failure, self.share = failure, share
        if failure == "refused":
            self.server.stop()
        try:
            yield
        finally:
            self.failure = ""
            self.over.set()
            if failure == "refused":
                self.server = _Server(self, self.port)

    def failure_now(self) -> str:
        """Return how the next request fails; "" if it does not."""
        failure = self.failure
        return failure if failure == "refused" or self.dice.random() < self.share else ""

    def close(self) -> None:
        self.over.set()
        self.server.stop()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 256

    def __init__(self, proxy: FaultyProxy, port: int) -> None:
        self.proxy = proxy
        super().__init__(("127.0.0.1", port), _Handler)
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        self.shutdown()
        self.server_close()

    def handle_error(self, *_: object) -> None:
        pass


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def _answer(self) -> None:
        proxy = self.server.proxy
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        time.sleep(proxy.latency)
        failure = proxy.failure_now()
        if len(body) < length or failure in ("reset", "refused"):
            self._reset()
        elif failure == "stall":
            proxy.over.wait()
            self._reset()
        elif failure in STATUSES:
            self._fail(int(failure) if failure.isdecimal() else 503, STATUSES[failure])
        else:
            self._forward(body, failure)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _answer

    def _forward(self, body: bytes, failure: str) -> None:
        try:
            answer, content = self._ask(body)
        except (OSError, HTTPException):
            self._reset()
            return
        if failure == "lost":
            self._reset()
        elif failure == "done, but 500":
            self._fail(500, STATUSES["500"])
        else:
            self._pass_on(answer, content, is_cut=failure == "cut")

    def _ask(self, body: bytes) -> tuple[HTTPResponse, bytes]:
        connection = HTTPConnection("127.0.0.1", self.server.proxy.target, timeout=60)
        try:
            connection.putrequest(
                self.command, self.path, skip_host=True, skip_accept_encoding=True
            )
            for name, value in self.headers.items():
                if name.lower() not in ("connection", "expect"):
                    connection.putheader(name, value)
            connection.endheaders(body)
            answer = connection.getresponse()
            return answer, answer.read()
        finally:
            connection.close()

    def _pass_on(self, answer: HTTPResponse, content: bytes, *, is_cut: bool) -> None:
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in HOP_BY_HOP:
                self.send_header(name, value)
        is_head = self.command == "HEAD"
        length = answer.getheader("Content-Length") if is_head else len(content)
        self.send_header("Content-Length", str(length or 0))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if is_cut else content)
        if is_cut:
            self._reset()

    def _fail(self, status: int, code: str) -> None:
        content = b"" if self.command == "HEAD" else ERROR.format(code).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _reset(self) -> None:
        self.wfile.flush()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER)
        self.close_connection = True

    def log_message(self, *_: Any) -> None:
        pass
