"""Servers without a valid certificate: no attempt would do better."""

import ssl
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from distributed.security import Security

from captioner.jobs.errors import FetchError, HostDown
from captioner.jobs.fetching.fetch import fetch
from captioner.jobs.storage.attempts.hosts import host_of
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
