"""An HTTP server whose answers are bytes that a test chooses, whether or not HTTP allows them."""

import socketserver
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress

from tests.support.servers import POLL_SECONDS

Answer = Callable[[str, str], Iterable[bytes]]  # from the path and the head of a request


def answer(body: bytes, status: str = "200 OK", **headers: object) -> bytes:
    """Return an answer of HTTP; headers are named with "_" for "-"."""
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    head = [f"HTTP/1.1 {status}", *lines, f"Content-Length: {len(body)}", "", ""]
    return "\r\n".join(head).encode() + body


@contextmanager
def odd_server(answers: Answer) -> Iterator[str]:
    """Run a server that sends what `answers` yields, and keeps its connections; yield its URL.

    A connection is closed when `answers` yields b"".
    """

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            with suppress(OSError):
                while head := self._head():
                    for part in answers(head.split(" ")[1], head):
                        if not part:
                            return
                        self.wfile.write(part)

        def _head(self) -> str:
            lines = []
            while (line := self.rfile.readline().decode().strip()) or not lines:
                if not line:
                    return ""
                lines.append(line)
            return "\n".join(lines)

    class Server(socketserver.ThreadingTCPServer):
        allow_reuse_address = daemon_threads = True
        request_queue_size = 100

    with Server(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(POLL_SECONDS,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
