import os
import socket
import threading
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import pytest
import s3fs
from fsspec.asyn import AsyncFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from captioner.jobs.errors import FetchError, HostDown
from captioner.jobs.fetching import fetch as fetch_module
from captioner.jobs.fetching.by_uri import fetch_image
from captioner.jobs.fetching.fetch import fetch, read_remote
from captioner.jobs.storage import bounded_reads, filesystems
from captioner.jobs.storage.attempts import hosts, retry
from captioner.jobs.storage.attempts.pace import Pace
from captioner.jobs.storage.containers import open_container
from captioner.jobs.storage.failures import reason
from captioner.jobs.storage.filesystems import configure, file_info
from captioner.jobs.storage.http import client
from captioner.jobs.storage.http.access import rules_of
from captioner.schemas.caption_table import Status
from tests.support.servers import POLL_SECONDS, HttpServer, S3Server

LIMIT = 1000


@pytest.fixture(autouse=True)
def no_host_is_known() -> Iterator[None]:
    hosts.forget_hosts()
    yield
    hosts.forget_hosts()


def status_of(uri: str) -> Status:
    with pytest.raises(FetchError) as caught:
        fetch(uri, LIMIT)
    assert str(caught.value)
    return caught.value.status


def test_a_local_file_is_its_bytes_by_path_and_by_file_url(tmp_path: Path) -> None:
    path = tmp_path / "a b.jpg"
    path.write_bytes(b"bytes")
    assert fetch(str(path), LIMIT) == b"bytes"
    assert fetch(path.as_uri(), LIMIT) == b"bytes"


def test_a_name_that_is_not_utf8_is_fetched_by_its_file_url(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/\xff.jpg"
    with open(path, "wb") as file:  # noqa: PTH123
        file.write(b"bytes")
    assert fetch(Path(os.fsdecode(path)).as_uri(), LIMIT) == b"bytes"


def test_missing_files_are_not_found(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "broken").symlink_to("nowhere")
    for name in ("none.jpg", "file/below.jpg", "broken", "null\0byte"):
        assert status_of(str(tmp_path / name)) == Status.NOT_FOUND


def test_a_file_of_the_limit_is_read_and_a_larger_one_is_too_large(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(b"x" * LIMIT)
    assert len(fetch(str(path), LIMIT)) == LIMIT
    path.write_bytes(b"x" * (LIMIT + 1))
    assert status_of(str(path)) == Status.TOO_LARGE


def test_what_is_no_file_fails_instead_of_blocking(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket.jpg"))
        for name in ("pipe.jpg", "socket.jpg", "."):
            assert status_of(str(tmp_path / name)) == Status.FETCH_FAILED
            for archive in ("zip://a.jpg::", "zip://a.jpg::tar://x.zip::"):
                assert status_of(f"{archive}{tmp_path / name}") == Status.FETCH_FAILED
    (tmp_path / "pipe.jpg").rename(tmp_path / "pipe.parquet")
    with pytest.raises(FetchError, match="not a regular file"):
        fetch_image(f"{tmp_path}/pipe.parquet#row=0", LIMIT)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux")
def test_a_file_is_as_large_as_what_is_read_of_it_whatever_its_size_says() -> None:
    assert Path("/proc/self/maps").stat().st_size == 0
    assert status_of("/proc/self/maps") == Status.TOO_LARGE
    assert fetch("/proc/self/maps", 10**9).endswith(b"\n")


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (PermissionError(13, "no"), Status.DENIED),
        (TimeoutError("slow"), Status.TIMEOUT),
        (OSError(5, "disk"), Status.FETCH_FAILED),
        (RuntimeError("a store's own error"), Status.FETCH_FAILED),
    ],
)
def test_each_kind_of_failure_has_its_status(
    error: Exception, status: Status, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_arguments: object) -> None:
        raise error

    monkeypatch.setattr(MemoryFileSystem, "open", fail)
    monkeypatch.setattr(retry, "RETRY_DELAYS", ())
    monkeypatch.setattr(fetch_module, "PATIENCE", 0.0)
    assert status_of("memory://bucket/a.jpg") == status


def test_a_store_that_nothing_can_open_fails_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "RETRY_DELAYS", (1e9,))
    assert status_of("carrier-pigeon://bucket/a.jpg") == Status.FETCH_FAILED


def test_a_limit_beyond_all_memory_is_no_limit(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"bytes")
    assert fetch(str(tmp_path / "a.jpg"), 10**15) == b"bytes"


def test_a_url_is_read_through_fsspec() -> None:
    with fsspec.open("memory://bucket/a.jpg", "wb") as file:
        file.write(b"bytes")
    assert fetch("memory://bucket/a.jpg", LIMIT) == b"bytes"
    assert status_of("memory://bucket/none.jpg") == Status.NOT_FOUND


def test_passing_faults_of_a_remote_store_are_retried(monkeypatch: pytest.MonkeyPatch) -> None:
    faults = [OSError("reset"), TimeoutError("slow")]
    opened = MemoryFileSystem.open

    def flaky(*arguments: object) -> object:
        if faults:
            raise faults.pop()
        return opened(*arguments)

    with fsspec.open("memory://bucket/b.jpg", "wb") as file:
        file.write(b"bytes")
    monkeypatch.setattr(MemoryFileSystem, "open", flaky)
    monkeypatch.setattr(retry, "RETRY_DELAYS", (0.0, 0.0, 0.0))
    monkeypatch.setattr(hosts, "LONGEST_BACK_OFF", 0.0)
    assert fetch("memory://bucket/b.jpg", LIMIT) == b"bytes"
    assert not faults


# Real stores


def status_once(uri: str, monkeypatch: pytest.MonkeyPatch) -> Status:
    """The status of a failure that must not be retried."""
    monkeypatch.setattr(retry, "RETRY_DELAYS", (1.0, 1e9))
    monkeypatch.setattr("time.sleep", lambda _: pytest.fail("it was tried again"))
    return status_of(uri)


def test_an_object_is_its_bytes_by_one_request(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = s3.bucket({"a.jpg": b"bytes", "empty.jpg": b"", "big.jpg": b"x" * (LIMIT + 1)})
    asked = []
    call = s3fs.S3FileSystem._call_s3

    async def count(fs: object, method: str, *rest: object, **options: object) -> object:
        asked.append(method)
        return await call(fs, method, *rest, **options)

    monkeypatch.setattr(s3fs.S3FileSystem, "_call_s3", count)
    assert fetch(f"{bucket}/a.jpg", LIMIT) == b"bytes"
    assert fetch(f"{bucket}/empty.jpg", LIMIT) == b""
    assert status_of(f"{bucket}/big.jpg") == Status.TOO_LARGE
    assert asked == ["get_object"] * 3


def test_what_s3_does_not_have_or_give_is_told_apart(
    s3: S3Server, http_server: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = s3.bucket({})
    assert status_once(f"{bucket}/none.jpg", monkeypatch) == Status.NOT_FOUND
    assert status_once("s3://no-such-bucket-here/a.jpg", monkeypatch) == Status.NOT_FOUND
    configure({"s3": {"endpoint_url": http_server.url}})
    assert status_once("s3://status/403.jpg", monkeypatch) == Status.DENIED
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    configure({"s3": {**s3.options["s3"], "cache_regions": False}})
    assert status_once(f"{bucket}/none.jpg", monkeypatch) == Status.DENIED


@pytest.mark.parametrize(
    ("code", "status"),
    [(404, "not_found"), (410, "not_found"), (401, "denied"), (403, "denied")],
)
def test_http_answers_that_are_final_are_not_retried(
    http_server: HttpServer, monkeypatch: pytest.MonkeyPatch, code: int, status: str
) -> None:
    assert status_once(f"{http_server.url}/status/{code}.jpg", monkeypatch) == Status(status)
    assert len(http_server.requested) == 1


@pytest.mark.parametrize("code", [429, 500, 503])
def test_http_answers_that_may_pass_are_retried(
    http_server: HttpServer, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    monkeypatch.setattr(retry, "RETRY_DELAYS", (0.0, 0.0))
    monkeypatch.setattr(hosts, "LONGEST_BACK_OFF", 0.0)
    monkeypatch.setattr(fetch_module, "PATIENCE", 0.2)
    assert status_of(f"{http_server.url}/status/{code}.jpg") == Status.FETCH_FAILED
    assert len(http_server.requested) >= 3


@pytest.mark.parametrize("code", [206, 302])
def test_an_http_answer_that_is_not_the_whole_image_is_a_failure(
    http_server: HttpServer, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    monkeypatch.setattr(retry, "RETRY_DELAYS", (0.0,))
    with pytest.raises(FetchError, match=f"the server answered {code}") as failure:
        fetch(f"{http_server.url}/status/{code}.jpg", LIMIT)
    assert failure.value.status == Status.FETCH_FAILED


def test_an_http_image_is_its_bytes_by_one_request(http_server: HttpServer) -> None:
    (http_server.folder / "a b.jpg").write_bytes(b"bytes")
    (http_server.folder / "big.jpg").write_bytes(b"x" * (LIMIT + 1))
    assert fetch(f"{http_server.url}/a%20b.jpg?x=1::2", LIMIT) == b"bytes"
    assert status_of(f"{http_server.url}/big.jpg") == Status.TOO_LARGE
    assert http_server.requested == ["/a%20b.jpg?x=1::2", "/big.jpg"]


def test_headers_are_sent_with_each_request(http_server: HttpServer) -> None:
    (http_server.folder / "private").mkdir()
    (http_server.folder / "private" / "a.jpg").write_bytes(b"bytes")
    url = f"{http_server.url}/private/a.jpg"
    assert status_of(url) == Status.DENIED
    headers = {"headers": {"Authorization": "Basic dTpw"}}
    for options in (headers, {"client_kwargs": headers}):
        configure({"http": options}, rules_of([http_server.url], (), False, {"http": options}))
        assert file_info(url)["size"] == 5
        assert fetch(url, LIMIT) == b"bytes"
    configure({})


def test_a_server_that_never_answers_is_a_timeout(
    http_server: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry, "FETCH_SECONDS", 0.5)
    monkeypatch.setattr(fetch_module, "PATIENCE", 0.5)
    assert status_of(f"{http_server.url}/hang/a.jpg") == Status.TIMEOUT
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "nothing")
    configure({"s3": {"endpoint_url": http_server.url}})
    assert status_of("s3://hang/a.jpg") == Status.TIMEOUT
    configure({})


def test_a_silent_connection_is_given_up_before_the_time_is_over(
    http_server: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("captioner.jobs.storage.filesystems.HTTP_READ_SECONDS", 0.2)
    monkeypatch.setattr(retry, "RETRY_DELAYS", (0.0,))
    monkeypatch.setattr(fetch_module, "PATIENCE", 0.5)
    configure({})
    assert status_of(f"{http_server.url}/hang/a.jpg") == Status.TIMEOUT
    configure({})


def test_a_server_that_is_not_there_is_a_failure(
    local_servers: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch_module, "PATIENCE", 0.0)
    assert status_of("http://127.0.0.1:9/a.jpg") == Status.FETCH_FAILED


@pytest.mark.parametrize(("uri", "extra"), [("gs://b/a.jpg", "gs"), ("az://b/a.jpg", "az")])
def test_a_package_that_is_missing_is_named_in_the_row(uri: str, extra: str) -> None:
    with pytest.raises(FetchError, match=rf"pip install 'captioner\[{extra}\]'"):
        fetch(uri, LIMIT)


def test_an_archive_is_opened_once_for_all_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure({})
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for n in range(200):
            archive.writestr(f"d/{n}.jpg", str(n) * 50, zipfile.ZIP_DEFLATED)
    opened = []
    init = zipfile.ZipFile.__init__
    monkeypatch.setattr(
        zipfile.ZipFile, "__init__", lambda *given, **rest: opened.append(1) or init(*given, **rest)
    )
    uris = [f"zip://d/{n}.jpg::{tmp_path}/x.zip" for n in range(200)]
    with ThreadPoolExecutor(8) as pool:
        data = list(pool.map(lambda uri: fetch(uri, LIMIT), uris))
    assert data == [(str(n) * 50).encode() for n in range(200)]
    assert len(opened) == 1
    assert status_of(f"zip://none.jpg::{tmp_path}/x.zip") == Status.NOT_FOUND
    assert status_of(f"zip://a.jpg::{tmp_path}/none.zip") == Status.NOT_FOUND


# Limits


@pytest.fixture
def blocks() -> tuple[bytearray, list[tuple[int, int]]]:
    """The bytes of a store that only gives whole ranges, as gcsfs and adlfs do, and those asked."""
    data, asked = bytearray(), list[tuple[int, int]]()

    class FileSystem(AsyncFileSystem):  # type: ignore[misc]
        protocol = "blocks"
        cachable = False

        async def _cat_file(self, path: str, start: int = 0, end: int = 0) -> bytes:
            asked.append((start, end))
            if start >= len(data):
                error: Any = OSError("InvalidRange")
                error.status_code = 416
                raise error
            return bytes(data[start:end])

    fsspec.register_implementation("blocks", FileSystem, clobber=True)
    return data, asked


@pytest.mark.parametrize("size", [0, 3, 4, 8, 10])
def test_a_store_that_cannot_stream_is_asked_for_parts(
    blocks: tuple[bytearray, list[tuple[int, int]]], monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(fetch_module, "RANGE", 4)
    data, asked = blocks
    data += bytes(range(size))
    assert fetch("blocks://bucket/a.jpg", 10) == bytes(range(size))
    assert asked == [(start, start + 4) for start in range(0, size + 1, 4)]
    if size == 10:
        with pytest.raises(FetchError, match="more than 9 bytes"):
            fetch("blocks://bucket/a.jpg", 9)


def test_a_package_that_blocks_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()
    monkeypatch.setattr(MemoryFileSystem, "open", lambda *_: released.wait())
    monkeypatch.setattr(retry, "FETCH_SECONDS", 0.2)
    monkeypatch.setattr(fetch_module, "PATIENCE", 0.0)
    assert status_of("memory://bucket/a.jpg") == Status.TIMEOUT
    released.set()


def test_time_in_which_we_read_nothing_ourselves_does_not_count(http_server: HttpServer) -> None:
    (http_server.folder / "a.jpg").write_bytes(b"bytes")
    pace, allowed_at = Pace(1.0), time.monotonic() + 1.2
    uri = f"{http_server.url}/a.jpg"
    assert read_remote(uri, 9, pace, lambda _: time.monotonic() > allowed_at) == b"bytes"


class _Trickle(BaseHTTPRequestHandler):
    """Gives a megabyte by ranges, a byte of it now and then; of /headers, not even those."""

    def do_GET(self) -> None:
        if self.path == "/headers":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Name: ")
            while not self.server.stopped.wait(0.05):  # type: ignore[attr-defined]
                self.wfile.write(b"x")
            return
        start = int(self.headers.get("Range", "bytes=0-").partition("=")[2].partition("-")[0])
        self.send_response(206)
        self.send_header("Content-Length", str(1_000_000 - start))
        self.send_header("Content-Range", f"bytes {start}-999999/1000000")
        self.send_header("Accept-Ranges", "bytes")
        self.end_headers()
        if self.command == "GET":
            self.server.asked.set()  # type: ignore[attr-defined]
            while not self.server.stopped.wait(0.05):  # type: ignore[attr-defined]
                self.wfile.write(b"x")

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def trickle(local_servers: None) -> Iterator[Any]:
    """Yield such a server."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Trickle) as server:
        server.daemon_threads = True
        server.handle_error = lambda *_: None  # type: ignore[assignment, method-assign]
        server.stopped, server.asked = threading.Event(), threading.Event()  # type: ignore[attr-defined]
        server.url = f"http://127.0.0.1:{server.server_port}"  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, args=(POLL_SECONDS,), daemon=True).start()
        configure({})
        yield server
        server.stopped.set()  # type: ignore[attr-defined]
        server.shutdown()
        configure({})


@pytest.mark.parametrize("uri", ["zip://a.jpg::{}/x.zip", "{}/x.tar", "{}/x.parquet"])
def test_a_container_that_trickles_is_given_up(
    trickle: Any, monkeypatch: pytest.MonkeyPatch, uri: str
) -> None:
    monkeypatch.setattr(bounded_reads, "RANGE_SECONDS", 0.3)
    monkeypatch.setattr(bounded_reads, "RANGE_RATE", 1e9)
    monkeypatch.setattr(retry, "RETRY_DELAYS", ())
    url = uri.format(trickle.url)
    with pytest.raises(HostDown, match="not complete within 0 s"):
        if url.startswith("zip"):
            fetch(url, LIMIT)
        else:
            with open_container(url) as file:
                file.read(1000)


def test_an_answer_whose_headers_trickle_is_given_up(
    trickle: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "ANSWER_SECONDS", 0.3)
    with pytest.raises(TimeoutError):
        file_info(f"{trickle.url}/headers")


def test_a_copy_that_trickles_is_given_up(trickle: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filesystems, "COPY_SECONDS", 0.3)
    with pytest.raises(TimeoutError) as caught:
        filesystems.open_copy(f"{trickle.url}/x.tar")
    assert reason(caught.value).startswith("the answer came too slowly")


def test_an_archive_whose_host_is_slow_holds_up_no_other(
    trickle: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry, "RETRY_DELAYS", (0.05,))
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("a.jpg", b"bytes")
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(lambda: status_of(f"zip://a.jpg::{trickle.url}/x.zip"))
        assert trickle.asked.wait(30)
        assert fetch(f"zip://a.jpg::{tmp_path}/x.zip", LIMIT) == b"bytes"
        assert not slow.done()
        trickle.stopped.set()
        assert slow.result() in (Status.FETCH_FAILED, Status.UNREADABLE)
