"""Connections that are used again, and servers that send what nobody asked for."""

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from fsspec.asyn import get_loop, sync
from fsspec.implementations.http import HTTPFileSystem

from captioner.jobs.fetching.fetch import fetch
from captioner.jobs.storage.http import connections
from tests.support.odd_answers import answer, odd_server


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch, local_servers: None) -> None:
    monkeypatch.setattr(connections, "QUIET_SECONDS", 0.05)


def test_a_second_answer_to_one_request_is_never_that_of_another_image(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connections, "QUIET_SECONDS", 60.0)
    late, sent = threading.Event(), threading.Event()

    def twice(path: str, _head: str) -> Iterator[bytes]:
        yield answer(path.encode())
        late.wait(60)
        yield answer(b"the wrong one")
        sent.set()

    with odd_server(twice) as url:
        for number in range(30):
            assert fetch(f"{url}/{number}.jpg", 100) == f"/{number}.jpg".encode()
            if number == 5:
                late.set()
                assert sent.wait(60)
                sync(get_loop(), asyncio.sleep, 0.01)  # the second answer is read meanwhile
                monkeypatch.setattr(connections, "QUIET_SECONDS", 0.0)


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


def test_connections_that_are_not_in_use_are_few_whatever_the_number_of_hosts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connections, "MOST_IDLE", 2)
    threads = []

    def once(path: str, _head: str) -> Iterator[bytes]:
        threads.append(threading.current_thread())
        yield answer(path.encode())

    with ExitStack() as servers:
        for _ in range(5):
            fetch(f"{servers.enter_context(odd_server(once))}/1.jpg", 100)
        for thread in threads[:3]:
            thread.join(60)
        assert [thread.is_alive() for thread in threads] == [False] * 3 + [True] * 2


def test_nothing_is_used_again_with_an_aiohttp_that_works_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    HTTPFileSystem.clear_instance_cache()
    monkeypatch.setattr(connections, "_IS_KNOWN", False)
    heads = []

    def once(path: str, head: str) -> Iterator[bytes]:
        heads.append(head)
        yield answer(path.encode())

    with odd_server(once) as url:
        fetch(f"{url}/0.jpg", 100)
    assert "Connection: close" in heads[0]
    HTTPFileSystem.clear_instance_cache()


def test_a_host_is_trusted_after_it_has_closed_connections_that_were_not_used() -> None:
    threads, over = [], threading.Event()

    def closing(path: str, _head: str) -> Iterator[bytes]:
        if threading.current_thread() not in threads:
            threads.append(threading.current_thread())
        yield answer(path.encode())
        if path == "/last.jpg":
            over.wait(60)
            yield b""

    with odd_server(closing) as url:
        fetch(f"{url}/0.jpg", 100)
        time.sleep(0.1)
        fetch(f"{url}/last.jpg", 100)
        over.set()
        threads[0].join(60)
        sync(get_loop(), asyncio.sleep, 0.01)
        for number in range(20):
            fetch(f"{url}/{number}.jpg", 100)
        assert len(threads) == 2
