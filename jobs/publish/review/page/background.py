"""Work in threads that never keep the program from ending."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import TypeVar

T = TypeVar("T")


class Background:
    """Some threads that do one thing after the other.

    Unlike those of an executor, they die with the program, even while a server that they read from
    is silent.
    """

    def __init__(self, threads: int) -> None:
        self._work: SimpleQueue[Callable[[], None]] = SimpleQueue()
        for _ in range(threads):
            threading.Thread(target=self._loop, daemon=True).start()

    def run(self, function: Callable[..., T], *arguments: object) -> "asyncio.Future[T]":
        """Call a function in one of the threads; must itself be called in an event loop."""
        result: Future[T] = Future()

        def call() -> None:
            if not result.set_running_or_notify_cancel():
                return
            try:
                result.set_result(function(*arguments))
            except BaseException as error:  # noqa: BLE001  # raised where the result is awaited
                result.set_exception(error)

        self._work.put(call)
        return asyncio.wrap_future(result)

    def _loop(self) -> None:
        while True:
            self._work.get()()
