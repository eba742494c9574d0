"""The times of some images on the workers of a job, for `captioner plan`."""

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import pyarrow as pa

from captioner.jobs.config.job import JobConfig
from captioner.jobs.errors import JobError
from captioner.jobs.execution.cluster.connect import connect
from captioner.jobs.execution.cluster.scheduler import check_sendable, sendable
from captioner.jobs.execution.cluster.submissions import LostTask, Submissions, result_of
from captioner.jobs.execution.cluster.workers import POLL_SECONDS, Workers, tell
from captioner.jobs.execution.tasks.purse import Purse
from captioner.jobs.execution.worker.batches import time_and_watch
from captioner.jobs.execution.worker.sample import SampleTimes
from captioner.jobs.pipeline.settings import WorkerSettings

Samples = Callable[[int], list[pa.Table]]  # the images that each of n workers times
DIED = "one of the sample images killed its process, or took too much time or memory"


@dataclass(frozen=True)
class Timed:
    """The times of samples, on how many workers, and how long these took to start, with a model."""

    samples: list[SampleTimes]
    workers: int
    start_seconds: float


def time_samples(
    config: JobConfig, settings: WorkerSettings, images: int, samples: Samples
) -> Timed:
    """Return the times of `samples(workers)`, one per worker. JobError if a worker dies."""
    settings, began = sendable(config, settings), time.monotonic()
    with connect(config, settings.captioner, images, partial(tell, None)) as workers:
        count = len(workers.threads)
        tables = samples(count)
        allowance = Purse(config).divided(len(tables))
        submissions, name = Submissions(workers), secrets.token_hex(4)
        for number, table in enumerate(tables):
            check_sendable(config, table)
            key = f"sample-{name}-{number}"
            submissions.submit(time_and_watch, settings, table, allowance, key=key)
        times = [_next_times(submissions, workers) for _ in tables]
        start = time.monotonic() - began - max(each.seconds for each in times)
        return Timed(times, count, round(max(start, 0.0), 1))


def _next_times(submissions: Submissions, workers: Workers) -> SampleTimes:
    """Return the times of the next sample that ends; JobError if a worker dies of it."""
    while not (ended := submissions.next_ended(POLL_SECONDS)):
        workers.update()
        if submissions.give_up_stranded():
            raise JobError(DIED)
    try:
        times: SampleTimes = result_of(ended)
    except LostTask as error:
        raise JobError(DIED) from error
    return times
