"""What a task has done before it ends: from its worker to the driver, as events of Dask."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from distributed import Client, get_worker

from captioner.jobs.execution.tasks.task import PartitionResult, Task
from captioner.jobs.execution.worker.worker import caption_partition

TOPIC = "captioner-batches"  # one for all runs: a scheduler keeps the last events of each topic
SECONDS = 0.5  # between the events of a task, so that many workers do not flood the scheduler
Report = Callable[[str, int], None]  # the key of a task, and how many of its images are done


def caption_and_report(task: Task) -> PartitionResult:
    """Caption a task on a Dask worker, and report its images while it does."""
    worker = get_worker()
    return caption_partition(task, _seldom(lambda done: worker.log_event(TOPIC, [task.key, done])))


@contextmanager
def receiving(client: Client, report: Report) -> Iterator[None]:
    """Pass on, from another thread, what the tasks of all runs report."""
    client.subscribe_topic(TOPIC, lambda event: report(*event[1]))
    try:
        yield
    finally:
        if client.status == "running":  # otherwise the scheduler has gone
            client.unsubscribe_topic(TOPIC)


def _seldom(send: Callable[[int], None]) -> Callable[[int], None]:
    """Return a function that sends the first number, and others not too soon after the last."""
    last = -SECONDS

    def report(done: int) -> None:
        nonlocal last
        if time.monotonic() - last >= SECONDS:
            last = time.monotonic()
            send(done)

    return report
