"""What the client of HTTP keeps of hosts, and how it looks up their names."""

import queue
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from fsspec.implementations.http import HTTPFileSystem

from captioner.jobs.fetching.downloads import THREADS, Downloads
from captioner.jobs.fetching.fetch import fetch
from captioner.jobs.storage.filesystems import configure
from tests.support.odd_answers import answer, odd_server


@pytest.fixture(autouse=True)
def released(monkeypatch: pytest.MonkeyPatch, local_servers: None) -> Iterator[threading.Event]:
    """Give all names the address of this machine, those of "dead" hosts once this is set."""
    HTTPFileSystem.clear_instance_cache()
    configure({})
    look_up, release = socket.getaddrinfo, threading.Event()

    def found(host: Any, port: Any, *given: Any, **rest: Any) -> Any:
        if str(host).startswith("dead"):
            release.wait(60)
        return look_up("127.0.0.1", port, *given, **rest)

    monkeypatch.setattr(socket, "getaddrinfo", found)
    yield release
    release.set()


def test_names_that_take_long_to_look_up_hold_up_no_other_host(released: threading.Event) -> None:
    dead = THREADS - 1

    def image(path: str, _head: str) -> Iterator[bytes]:
        yield answer(path.encode())

    with odd_server(image) as url:
        port = url.rpartition(":")[2]
        uris = {number: f"http://dead{number}.example:{port}/1.jpg" for number in range(dead)}
        arrived: queue.SimpleQueue[int] = queue.SimpleQueue()
        downloads = Downloads({**uris, dead: f"http://good.example:{port}/1.jpg"}, 100)
        downloads.start(arrived.put, THREADS)
        assert arrived.get(timeout=30) == dead and not released.is_set()
        assert downloads.take(dead) == b"/1.jpg"
        downloads.close()
        released.set()


def test_no_cookie_of_a_host_is_kept() -> None:
    heads = []

    def image(path: str, head: str) -> Iterator[bytes]:
        heads.append(head)
        yield answer(path.encode(), Set_Cookie="id=1; Max-Age=86400; Path=/")

    with odd_server(image) as url:
        for _ in range(2):
            fetch(f"http://some.example:{url.rpartition(':')[2]}/1.jpg", 100)
    assert not any("Cookie:" in head for head in heads) and len(heads) == 2
