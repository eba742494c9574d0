"""Connections that are used again, and servers that send what nobody asked for."""

import threading
import time
from collections.abc import Iterator

import pytest

from captioner.jobs.fetching.fetch import fetch
from captioner.jobs.storage.http import connections
from tests.support.odd_answers import answer, odd_server


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch, local_servers: None) -> None:
    monkeypatch.setattr(connections, "QUIET_SECONDS", 0.05)


def test_a_second_answer_to_one_request_is_never_that_of_another_image() -> None:
    def twice(path: str, _head: str) -> Iterator[bytes]:
        yield answer(path.encode())
        time.sleep(0.02)  # by then, the first one has been taken, and another image is asked for
        yield answer(b"the wrong one")

    with odd_server(twice) as url:
        for number in range(40):
            assert fetch(f"{url}/{number}.jpg", 100) == f"/{number}.jpg".encode()
            time.sleep(number % 3 * 0.01)


def test_connections_to_a_host_that_keeps_to_the_rules_are_used_again() -> None:
    threads = set()  # of the server, one for each connection

    def once(path: str, _head: str) -> Iterator[bytes]:
        threads.add(threading.current_thread())
        yield answer(path.encode())

    with odd_server(once) as url:
        fetch(f"{url}/0.jpg", 100)
        time.sleep(0.1)
        for number in range(20):
            fetch(f"{url}/{number}.jpg", 100)
        assert len(threads) == 1
