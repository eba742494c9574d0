"""An S3 server and an HTTP server."""

import itertools
import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from captioner.jobs.storage.http.access import NO_EXCEPTIONS, AccessRules, set_access_rules


@dataclass(frozen=True)
class S3Server:
    """An S3 server, and the storage options that reach it."""

    endpoint: str

    @property
    def options(self) -> dict[str, dict[str, Any]]:
        return {"s3": {"endpoint_url": self.endpoint}}

    def bucket(self, files: Mapping[str, bytes], name: str | None = None) -> str:
        """Create a bucket with these objects; return its URL."""
        import s3fs

        fs = s3fs.S3FileSystem(endpoint_url=self.endpoint)
        name = name or f"bucket-{next(_BUCKETS)}"
        fs.call_s3("create_bucket", Bucket=name)
        for key, data in files.items():
            fs.call_s3("put_object", Bucket=name, Key=key, Body=data)
        return f"s3://{name}"


_BUCKETS = itertools.count()


CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "nobody",
    "AWS_SECRET_ACCESS_KEY": "nothing",
    "AWS_DEFAULT_REGION": "us-east-1",
}


@contextmanager
def moto_server() -> Iterator[S3Server]:
    """Run moto's server as a process."""
    with subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-p", "0"], stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr
        address = next(filter(None, (re.search("http://[0-9.:]+", x) for x in process.stderr)))
        log = threading.Thread(target=lambda: [None for _ in process.stderr or ()], daemon=True)
        log.start()  # or the server would block on a full pipe
        try:
            yield S3Server(address[0])
        finally:
            process.terminate()


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """Yield an S3 server, with credentials for it in the environment."""
    with pytest.MonkeyPatch.context() as patch, moto_server() as server:
        for name, value in CREDENTIALS.items():
            patch.setenv(name, value)
        yield server


@pytest.fixture
def s3(s3_server: S3Server) -> Iterator[S3Server]:
    """Yield the S3 server, with its options set in this process."""
    from captioner.jobs.storage.filesystems import configure

    configure(s3_server.options)
    yield s3_server
    configure({})


POLL_SECONDS = 0.01  # within which a server notices its shutdown


class _Handler(SimpleHTTPRequestHandler):
    """A handler that serves a folder, any status (/status/403.jpg), and silence (/hang/).

    Files below /private/ need a header Authorization.
    """

    def do_GET(self) -> None:
        if status := re.fullmatch(r"/status/(\d+)\.jpg", self.path):
            self.send_error(int(status[1]))
        elif self.path.startswith("/private/") and "Authorization" not in self.headers:
            self.send_error(401)
        elif self.path.startswith("/hang/"):
            self.server.stopped.wait()  # type: ignore[attr-defined]
        else:
            super().do_GET()

    do_HEAD = do_GET

    def log_request(self, *_arguments: object) -> None:
        self.server.requested.append(self.path)  # type: ignore[attr-defined]

    def log_message(self, *_arguments: object) -> None:
        pass


@dataclass(frozen=True)
class HttpServer:
    """A server of the files in `folder`; `requested` are the paths requested so far."""

    url: str
    folder: Path
    requested: list[str]


@pytest.fixture
def local_servers() -> Iterator[None]:
    """Let this process ask servers of this machine."""
    set_access_rules(AccessRules(allow_private=True))
    yield
    set_access_rules(NO_EXCEPTIONS)


@pytest.fixture
def http_server(tmp_path: Path, local_servers: None) -> Iterator[HttpServer]:
    """Yield a server of the files in tmp_path/served."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Handler(_Handler):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments, directory=str(folder))

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.requested = []  # type: ignore[attr-defined]
        server.stopped = threading.Event()  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, args=(POLL_SECONDS,), daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        yield HttpServer(url, folder, server.requested)  # type: ignore[attr-defined]
        server.stopped.set()  # type: ignore[attr-defined]
        server.shutdown()
