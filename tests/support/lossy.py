"""A proxy before an HTTP server that passes requests on and loses chosen answers."""

import http.client
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from tests.support.servers import POLL_SECONDS

Chosen = Callable[[str, str], bool]  # by method and path
NOT_PASSED_ON = {"transfer-encoding", "connection", "content-length", "date", "server"}


class LossyProxy(ThreadingHTTPServer):
    """A proxy to the server at `endpoint`; it loses the first answer to each of the chosen URLs.

    `lost` are the requests that were carried out, and whose answer was lost.
    """

    daemon_threads = True

    def __init__(self, endpoint: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.target = urlsplit(endpoint).netloc
        self.chosen: Chosen = lambda method, path: False
        self.lost: list[tuple[str, str]] = []
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def loses(self, method: str, path: str) -> bool:
        with self.lock:
            name = (method, path.partition("?")[0])
            if name in self.lost or not self.chosen(*name):
                return False
            self.lost.append(name)
            return True


class _Handler(BaseHTTPRequestHandler):
    server: LossyProxy
    protocol_version = "HTTP/1.1"

    def _pass_on(self) -> None:
        if self.headers.get("Expect"):
            self.send_response_only(100)
            self.end_headers()
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        target = http.client.HTTPConnection(self.server.target)
        target.request(self.command, self.path, body, dict(self.headers))
        answer = target.getresponse()
        content = answer.read()
        target.close()
        if self.server.loses(self.command, self.path):
            self.close_connection = True
            return
        self.send_response_only(answer.status, answer.reason)
        for name, value in answer.getheaders():
            if name.lower() not in NOT_PASSED_ON:
                self.send_header(name, value)
        length = answer.getheader("Content-Length") if self.command == "HEAD" else str(len(content))
        self.send_header("Content-Length", length or "0")
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _pass_on

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def lossy_proxy(endpoint: str) -> Iterator[LossyProxy]:
    """Run a proxy in this process."""
    with LossyProxy(endpoint) as server:
        threading.Thread(target=server.serve_forever, args=(POLL_SECONDS,), daemon=True).start()
        yield server
        server.shutdown()
