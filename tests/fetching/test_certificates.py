"""Servers without a valid certificate, or machines that take valid ones for invalid."""

import ssl
import threading
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from distributed.security import Security

from captioner.jobs.errors import FetchError, HostDown
from captioner.jobs.fetching.fetch import fetch
from captioner.jobs.storage.attempts import retry
from captioner.jobs.storage.attempts.hosts import host_of
from captioner.jobs.storage.attempts.pace import Pace
from captioner.jobs.storage.attempts.retry import retried
from captioner.jobs.storage.filesystems import configure
from tests.support.servers import CREDENTIALS, POLL_SECONDS

WHY = "the server's certificate is not valid"


@pytest.fixture
def url(tmp_path: Path, local_servers: None) -> Iterator[str]:
    """A server whose certificate nobody has issued."""
    security = Security.temporary()
    files = tmp_path / "cert.pem", tmp_path / "key.pem"
    files[0].write_text(security.tls_scheduler_cert)
    files[1].write_text(security.tls_scheduler_key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*files)
    with ThreadingHTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler) as server:
        server.socket = context.wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
        threading.Thread(target=server.serve_forever, args=(POLL_SECONDS,), daemon=True).start()
        configure({})
        yield f"https://127.0.0.1:{server.server_port}"
        server.shutdown()
    configure({})


def test_the_images_of_a_server_without_a_valid_certificate_have_a_row_each(url: str) -> None:
    for number in range(4):
        with pytest.raises(FetchError, match=WHY) as caught:
            fetch(f"{url}/{number}.jpg", 100)
        assert caught.value.status == "fetch_failed"
        assert not isinstance(caught.value, HostDown)


def test_a_certificate_that_was_valid_before_is_an_outage(url: str) -> None:
    host = host_of(url)
    assert host
    host.gave(f"{url}/1.jpg")
    with pytest.raises(HostDown, match=WHY):
        fetch(f"{url}/2.jpg", 100)


def test_a_store_without_a_valid_certificate_is_down(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    configure({"s3": {"endpoint_url": url}})
    with pytest.raises(HostDown, match=WHY):
        fetch("s3://bucket/1.jpg", 100)


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Forget all hosts, and try again without a pause."""
    configure({})
    monkeypatch.setattr(retry, "RETRY_DELAYS", (0.01,))
    yield
    configure({})


def let_another_give() -> None:
    """Let another host of https have given an image."""
    url = "https://other.example/1.jpg"
    host = host_of(url)
    assert host
    host.gave(url)


def invalid(code: int) -> Callable[[Pace], bytes]:
    """Return a function that fails as OpenSSL does, with one of its codes."""

    def read(_pace: Pace) -> bytes:
        error = ssl.SSLCertVerificationError()
        error.verify_code, error.verify_message = code, "as OpenSSL says"
        raise error

    return read


URI = "https://example.org/1.jpg"
NOT_YET, EXPIRED, SELF_SIGNED, UNKNOWN_ROOT, UNKNOWN_ISSUER, OTHER_NAME = 9, 10, 18, 19, 20, 62


@pytest.mark.parametrize("code", [NOT_YET, EXPIRED, UNKNOWN_ROOT, UNKNOWN_ISSUER])
def test_a_clock_or_a_list_of_authorities_that_is_wrong_is_an_outage(
    at_once: None, code: int
) -> None:
    with pytest.raises(HostDown, match=WHY):
        retried(invalid(code), URI, patience=0.0)
    configure({})
    let_another_give()
    with pytest.raises(FetchError, match=WHY) as caught:
        retried(invalid(code), URI, patience=60.0)
    assert not isinstance(caught.value, HostDown)


def test_the_images_of_such_a_server_have_rows_once_another_gives_an_image(at_once: None) -> None:
    attempts = []

    def read(pace: Pace) -> bytes:
        attempts.append(pace)
        if len(attempts) == 2:
            let_another_give()
        return invalid(EXPIRED)(pace)

    with pytest.raises(FetchError, match=WHY) as caught:
        retried(read, URI, patience=60.0)
    assert not isinstance(caught.value, HostDown) and len(attempts) == 2


@pytest.mark.parametrize("code", [SELF_SIGNED, OTHER_NAME])
def test_a_certificate_that_no_machine_would_trust_is_the_fault_of_its_server(
    at_once: None, code: int
) -> None:
    with pytest.raises(FetchError, match=WHY) as caught:
        retried(invalid(code), URI, patience=60.0)
    assert not isinstance(caught.value, HostDown)
