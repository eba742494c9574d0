"""What a task has done before it ends: from its worker to the driver, as events of Dask."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TypeVar

import pyarrow as pa
from distributed import Client, Worker, get_worker

from captioner.jobs.execution.tasks.purse import Allowance
from captioner.jobs.execution.tasks.task import PartitionResult, Task
from captioner.jobs.execution.worker.sample import SampleTimes, time_sample
from captioner.jobs.execution.worker.watch import Limits
from captioner.jobs.execution.worker.worker import Host, caption_partition
from captioner.jobs.pipeline.settings import WorkerSettings

T = TypeVar("T")
TOPIC = "captioner-batches"  # one for all runs: a scheduler keeps the last events of each topic
SECONDS = 0.5  # between the events of a task, so that many workers do not flood the scheduler
WAITING_SECONDS = 5.0  # between those about an image that it waits for
MEMORY_SHARE = 0.9  # of the limit of a worker, before Dask ends it for no reason that we see
# Called with the key of a task, and how many of its images are done; or None, and for which one it
# waits.
Report = Callable[..., None]


def caption_and_report(task: Task) -> PartitionResult:
    """Caption a task on a Dask worker, and report its images while it does."""
    worker = get_worker()
    report = _seldom(lambda done: worker.log_event(TOPIC, [task.key, done]), SECONDS)
    waits = _seldom(lambda uri: worker.log_event(TOPIC, [task.key, None, uri]), WAITING_SECONDS)
    limits = _limits(worker, task.settings)
    host = Host(report, waits, partial(_is_abandoned, worker, task.key), limits)
    result = caption_partition(task, host)
    return replace(result, worker=worker.address)


def _is_abandoned(worker: Worker, key: str) -> bool:
    """Return whether nobody waits for a task: its run has ended. Dask goes on all the same."""
    state = worker.state.tasks.get(key)
    return state is None or state.state == "cancelled"


def time_and_watch(settings: WorkerSettings, plan: pa.Table, allowance: Allowance) -> SampleTimes:
    """Time a sample on a Dask worker, whose images have the limits of a run."""
    return time_sample(settings, plan, allowance, _limits(get_worker(), settings))


def _limits(worker: Worker, settings: WorkerSettings) -> Limits | None:
    """Return the limits of this process; None if no nanny would start another one."""
    if worker.nanny is None:
        return None
    memory = worker.memory_manager.memory_limit
    return Limits(settings.image_timeout, int(MEMORY_SHARE * memory) if memory else None)


@contextmanager
def receiving(client: Client, report: Report) -> Iterator[None]:
    """Pass on, from another thread, what the tasks of all runs report."""
    client.subscribe_topic(TOPIC, lambda event: report(*event[1]))
    try:
        yield
    finally:
        if client.status == "running":  # otherwise the scheduler has gone
            client.unsubscribe_topic(TOPIC)


def _seldom(send: Callable[[T], None], seconds: float) -> Callable[[T], None]:
    """Return a function that sends the first value, and others not too soon after the last."""
    last = -seconds

    def report(value: T) -> None:
        nonlocal last
        if time.monotonic() - last >= seconds:
            last = time.monotonic()
            send(value)

    return report
