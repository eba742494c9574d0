"""Connections to a store: none is lost, and each attempt is one request."""

import queue
import threading
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from captioner.jobs.errors import FetchError, HostDown
from captioner.jobs.fetching import fetch as fetch_module
from captioner.jobs.fetching.downloads import Downloads
from captioner.jobs.fetching.fetch import fetch
from captioner.jobs.storage import filesystems
from captioner.jobs.storage.attempts import hosts, retry
from captioner.jobs.storage.containers import open_archive
from captioner.jobs.storage.filesystems import configure, filesystem
from captioner.schemas.caption_table import Status
from tests.support.servers import CREDENTIALS, POLL_SECONDS, S3Server
from tests.support.unreliable import UnreliableServer

TIGHT = {"config_kwargs": {"max_pool_connections": 10}}


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make all limits short, and forget all hosts."""
    monkeypatch.setattr(retry, "RETRY_DELAYS", (0.0, 0.0))
    monkeypatch.setattr(hosts, "LONGEST_BACK_OFF", 0.0)
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    yield
    configure({})


def fetched(uris: Sequence[str], max_bytes: int) -> list[bytes | Status]:
    """Return the bytes that each URL gave, or why it gave none."""
    arrived: queue.SimpleQueue[int] = queue.SimpleQueue()
    downloads = Downloads(dict(enumerate(uris)), max_bytes)
    downloads.start(arrived.put, len(uris))
    found: dict[int, bytes | Status] = {}
    for _ in uris:
        number = arrived.get(timeout=60)
        try:
            found[number] = downloads.take(number)
        except FetchError as error:
            found[number] = error.status
        downloads.used()
    downloads.close()
    return [found[number] for number in range(len(uris))]


def test_thirty_objects_that_are_too_large_leave_their_connections_to_others(
    s3: S3Server,
) -> None:
    large = {f"{number}.jpg": bytes(3_000_000) for number in range(30)}
    bucket = s3.bucket({**large, "good.jpg": b"bytes"})
    configure({"s3": {**s3.options["s3"], **TIGHT}})
    assert fetched([f"{bucket}/{name}" for name in large], 1000) == [Status.TOO_LARGE] * 30
    assert fetched([f"{bucket}/good.jpg"], 1000) == [b"bytes"]
    assert fetch(f"{bucket}/good.jpg", 1000) == b"bytes"


class _Stalling(BaseHTTPRequestHandler):
    """Answers /bucket/stall-7 with half a body, /bucket/CODE with an error, others whole.

    If the store has a `code`, it answers the first requests with that, as many as `failures`.
    """

    def do_GET(self) -> None:
        self.server.requests.append(self.path)  # type: ignore[attr-defined]
        name = self.path.rpartition("/")[2].partition("?")[0]
        code = self.server.code  # type: ignore[attr-defined]
        if code and len(self.server.requests) <= self.server.failures:  # type: ignore[attr-defined]
            body = f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode()
            self.send_response(503 if code == "SlowDown" else 400)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            return
        if name.isdecimal():
            self.send_response(int(name))
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("Content-Length", "10")
        self.end_headers()
        self.wfile.write(b"bytes")
        if name.startswith("stall"):
            self.wfile.flush()
            self.server.stopped.wait()  # type: ignore[attr-defined]
        self.wfile.write(b"bytes")

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        pass


class Store(ThreadingHTTPServer):
    daemon_threads = True
    requests: list[str]
    code: str | None = None
    failures = 10**9
    stopped: threading.Event


@pytest.fixture
def store() -> Iterator[Store]:
    """Yield a store whose options are set in this process."""
    with Store(("127.0.0.1", 0), _Stalling) as server:
        server.requests, server.stopped = [], threading.Event()
        threading.Thread(target=server.serve_forever, args=(POLL_SECONDS,), daemon=True).start()
        configure({"s3": {"endpoint_url": f"http://127.0.0.1:{server.server_port}", **TIGHT}})
        yield server
        server.stopped.set()
        server.shutdown()


def test_bodies_that_stall_leave_their_connections_to_others(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert fetch("s3://bucket/good", 1000) == b"bytesbytes"
    monkeypatch.setattr(retry, "FETCH_SECONDS", 2.0)
    good = [f"s3://bucket/good-{number}" for number in range(5)]
    stalling = [f"s3://bucket/stall-{number}" for number in range(15)]
    assert fetched([*good, *stalling, *good], 1000) == [
        *[b"bytesbytes"] * 5,
        *[Status.TIMEOUT] * 15,
        *[b"bytesbytes"] * 5,
    ]
    assert fetched(good, 1000) == [b"bytesbytes"] * 5


def test_credentials_that_expire_are_no_fault_of_the_images(store: Store) -> None:
    good = [f"s3://bucket/good-{number}" for number in range(5)]
    assert fetched(good, 1000) == [b"bytesbytes"] * 5
    for code in ("ExpiredToken", "RequestTimeTooSkewed"):
        store.code = code
        hosts.forget_hosts()
        with pytest.raises(HostDown):
            fetch(good[0], 1000)
        with pytest.raises(HostDown):
            fetch(good[1], 1000)


def test_a_store_that_asks_to_slow_down_is_asked_again_more_slowly(store: Store) -> None:
    good = [f"s3://bucket/good-{number}" for number in range(40)]
    store.code, store.failures = "SlowDown", 12
    assert fetched(good, 1000) == [b"bytesbytes"] * 40
    assert len(store.requests) == 52


def test_http_bodies_that_are_not_read_to_their_end_close_their_connection(
    unreliable: UnreliableServer,
) -> None:
    configure({})
    uris = [f"{unreliable.url}/ok/{number}.jpg" for number in range(40)]
    assert fetched(uris, 100) == [Status.TOO_LARGE] * 40
    fs, _ = filesystem(uris[0])
    assert not fs._session.connector._acquired


@pytest.mark.parametrize("code", [500, 503])
def test_each_attempt_at_an_object_is_one_request(
    store: Store, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    monkeypatch.setattr(retry, "RETRY_DELAYS", ())
    monkeypatch.setattr(fetch_module, "PATIENCE", 0.0)
    with pytest.raises(FetchError, match=f"the server answered {code}"):
        fetch(f"s3://bucket/{code}", 1000)
    assert len(store.requests) == 1


def test_each_attempt_at_a_container_is_one_request(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry, "FETCH_SECONDS", 0.0)
    with pytest.raises(HostDown), open_archive("s3://bucket/503"):
        pass
    assert len(store.requests) == 1


def test_what_a_job_says_about_retries_stays(store: Store) -> None:
    own = {"config_kwargs": {"retries": {"total_max_attempts": 3}, "max_pool_connections": 5}}
    configure({"s3": own})
    fs, _ = filesystems.impatient_filesystem("s3://bucket/a.jpg")
    assert fs.config_kwargs | own["config_kwargs"] == fs.config_kwargs
    configure({})
    fs, _ = filesystems.impatient_filesystem("s3://bucket/a.jpg")
    assert fs.config_kwargs["retries"] == {"total_max_attempts": 1}
    assert filesystem("s3://bucket/a.jpg")[0].retries > 1  # listings, and OUT


def test_what_packages_offer_no_option_for_is_switched_off() -> None:
    fs, _ = filesystems.impatient_filesystem("s3://bucket/a.jpg")
    assert type(fs)().retries > 1 and fs.retries == 1


def test_gcsfs_sends_each_request_once() -> None:
    gcsfs = pytest.importorskip("gcsfs")
    configure({"gs": {"token": "anon"}})
    fs, _ = filesystems.impatient_filesystem("gs://bucket/a.jpg")
    assert isinstance(fs, gcsfs.GCSFileSystem)
    assert fs._request.func is type(fs)._request.__wrapped__


def test_adlfs_sends_each_request_once() -> None:
    adlfs = pytest.importorskip("adlfs")
    configure({"az": {"account_name": "someone", "anon": True}})
    fs, _ = filesystems.impatient_filesystem("az://bucket/a.jpg")
    assert isinstance(fs, adlfs.AzureBlobFileSystem)
    assert fs._timeout_kwargs["retry_total"] == 0


def test_a_package_that_may_retry_by_itself_is_warned_of() -> None:
    with pytest.warns(RuntimeWarning, match="may retry requests"):
        filesystems._send_once(object(), "gs")
