"""The nannies of the workers on this machine: they start workers, and end them at once if need be.

Dask closes no cluster that is half started, and asks a worker to end and waits for seconds, as it
may hold data. Here, it holds none: what it has committed is there, and the rest is to do again.
"""

import asyncio
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from typing import Any

import psutil
from distributed import Nanny, SpecCluster, Status

POLL_SECONDS = 0.1
MORE_STARTS = 2  # of a worker that dies while it starts
STOPS = (signal.SIGINT, signal.SIGTERM)


class HastyNanny(Nanny):
    """A nanny that starts another process if one is killed while it starts.

    When all is `over`, it starts none, and ends one that starts.
    """

    def __init__(self, *arguments: Any, over: threading.Event, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._over = over
        keep_ctrl_c_from_children()

    async def instantiate(self) -> Status:
        status = Status.init
        for _ in range(1 + MORE_STARTS):
            if status == Status.running or self._over.is_set():
                break
            status = await self._instantiate()
        return status

    async def _instantiate(self) -> Status:
        watching = asyncio.create_task(self._end_when_over())
        try:
            return await super().instantiate()
        finally:
            watching.cancel()

    async def _end_when_over(self) -> None:
        while True:
            await asyncio.sleep(POLL_SECONDS)
            if self._over.is_set():
                self.end_worker()

    def end_worker(self) -> None:
        """Kill the process of the worker, and those that it has started."""
        with suppress(psutil.Error):
            if self.pid:
                worker = psutil.Process(self.pid)
                for process in (*worker.children(recursive=True), worker):
                    process.kill()


def keep_ctrl_c_from_children() -> None:
    """Block SIGINT in this thread, and thus in the processes that it starts.

    The driver ends them itself. The resource tracker of multiprocessing must run before, because
    its start unblocks the signal.
    """
    resource_tracker.ensure_running()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})


@contextmanager
def until_complete(over: threading.Event) -> Iterator[None]:
    """Let Ctrl-C and SIGTERM wait until the end of this context, and set `over` meanwhile."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[int] = []

    def receive(number: int, _: object) -> None:
        received.append(number)
        over.set()

    former = {number: signal.signal(number, receive) for number in STOPS}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
        if received:
            signal.raise_signal(received[0])


@contextmanager
def ended_when_interrupted(cluster: SpecCluster, over: threading.Event) -> Iterator[None]:
    """End the workers of a cluster at once if Ctrl-C or SIGTERM ends this context."""
    try:
        yield
    except KeyboardInterrupt:
        over.set()
        for nanny in cluster.workers.values():
            nanny.end_worker()
        raise
