"""The tasks that Dask has been given: they end, or all workers that might have run them go away."""

from collections.abc import Callable
from queue import Empty, Queue
from typing import Any

from distributed import Future, KilledWorker

from captioner.jobs.execution.cluster.workers import Workers

RESULT_SECONDS = 20  # of a task that ended; it goes with its worker, but a committed part stays


class LostTask(Exception):
    """A task whose worker died, perhaps before it could hand its result over."""


def result_of(future: "Future[Any]") -> Any:
    """Return the result of a task that ended; raise LostTask, or what the task raised."""
    try:
        return future.result(timeout=RESULT_SECONDS)
    except (KilledWorker, TimeoutError) as error:
        future.cancel()
        raise LostTask from error


class Submissions:
    """The tasks in flight, by key; each may run on the workers that there were when it was given.

    The keys of tasks that ended or were given up are never used again.
    """

    def __init__(self, workers: Workers) -> None:
        self._workers = workers
        self._futures: dict[str, tuple[Future[Any], set[str]]] = {}
        self._ended: Queue[Future[Any]] = Queue()

    def submit(self, function: Callable[..., Any], *arguments: object, key: str) -> None:
        """Give Dask a task for the workers that may have tasks."""
        addresses = self._workers.addresses
        future = self._workers.client.submit(function, *arguments, key=key, workers=addresses)
        self._futures[key] = future, set(addresses or ())
        future.add_done_callback(self._ended.put)

    def next_ended(self, seconds: float) -> "Future[Any] | None":
        """Return a task that has ended, None if none does within some seconds."""
        try:
            future = self._ended.get(timeout=seconds)
        except Empty:
            return None
        return future if self._futures.pop(str(future.key), None) else None

    def give_up_stranded(self) -> list[str]:
        """Give up the tasks whose workers have all gone, and return their keys."""
        if self._workers.addresses is None:
            return []
        present = self._workers.present
        stranded = [
            future
            for future, places in self._futures.values()
            if not places & present and not future.done()
        ]
        for future in stranded:
            del self._futures[str(future.key)]
            future.cancel()
        return [str(future.key) for future in stranded]
