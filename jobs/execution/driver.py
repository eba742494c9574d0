"""The work of a run on Dask: few tasks in flight, and nothing lost when one fails.

A task that fails is tried again, then cut into parts, down to the single image that is at fault;
that one gets a row which says so. A partition whose worker died is cut at once. Dask blames every
task that a dead worker had been given; the marks (worker.py) tell which one it was at.
"""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError

import pyarrow as pa
from distributed import Client, Future, KilledWorker, as_completed

from captioner.jobs.config import JobConfig
from captioner.jobs.errors import ExitCode, JobError, TemporaryError, UsageError
from captioner.jobs.execution.cluster import connect
from captioner.jobs.execution.recorder import Tally
from captioner.jobs.execution.sample import SampleTimes, time_sample
from captioner.jobs.execution.task import (
    DIED,
    PartitionResult,
    Task,
    after_failure,
    again,
    tasks_of,
)
from captioner.jobs.execution.worker import caption_partition, committed_result
from captioner.jobs.pipeline.hash_index import HashLog
from captioner.jobs.pipeline.settings import WorkerSettings
from captioner.schemas.caption_table import Status

TASKS_PER_THREAD = 2  # in flight: one at work, one waiting
MOST_ATTEMPTS = 20  # of a task that never came to its turn
CRASHES_TO_GIVE_UP = 10  # if not a single image fared better
Samples = Callable[[int], list[pa.Table]]  # for so many workers


def caption_plan(config: JobConfig, settings: WorkerSettings, tally: Tally) -> None:
    """Caption all images of the plan. JobError for a fault that every image would meet."""
    tasks = tasks_of(tally.plan, tally.run, settings)
    with tally.progress(config.quiet), connect(config, len(tally.plan.partition_sizes)) as client:
        _Driver(client, tasks, tally).run()


def time_samples(
    config: JobConfig, settings: WorkerSettings, partitions: int, samples: Samples
) -> tuple[list[SampleTimes], int]:
    """What images take the workers of a job: each of `samples(workers)` one; and their number.

    JobError if a worker dies of an image.
    """
    with connect(config, partitions) as client:
        workers = len(client.nthreads())
        futures = [client.submit(time_sample, settings, s, pure=False) for s in samples(workers)]
        try:
            return client.gather(futures), workers
        except KilledWorker as error:
            raise JobError("a process died of one of the images that were to be timed") from error


class _Driver:
    """Keeps the workers busy until no task is left."""

    def __init__(self, client: Client, tasks: Iterator[Task], tally: Tally) -> None:
        self.client = client
        self.tasks = tasks  # not begun
        self.waiting: deque[Task] = deque()  # to be repeated, before new ones
        self.running: dict[str, Task] = {}  # by key
        self.completed = as_completed(loop=client.loop)
        self.tally = tally
        self.hashes = HashLog(tally.run)

    def run(self) -> None:
        """Settle one task after the other. Few are in flight, so the graph stays small."""
        self._top_up()
        for future in self.completed:
            task = self.running.pop(future.key)
            self.waiting.extendleft(reversed(self._settle(task, future)))
            self._top_up()

    def _top_up(self) -> None:
        threads = self.client.nthreads()  # by worker; more may have come
        self.tally.workers = max(self.tally.workers, len(threads))
        while len(self.running) < TASKS_PER_THREAD * max(sum(threads.values()), 1):
            task = self.waiting.popleft() if self.waiting else next(self.tasks, None)
            if task is None:
                return
            self.running[task.key] = task
            self.completed.add(self.client.submit(caption_partition, task, key=task.key))

    def _settle(self, task: Task, future: "Future[PartitionResult]") -> list[Task]:
        """Count what a task has committed; what is to be done instead if it has not."""
        try:
            result = future.result()
        except KilledWorker:
            return self._settle_death(task)
        except CancelledError as error:
            raise TemporaryError("the connection to the Dask scheduler was lost") from error
        return self._settle_result(task, result)

    def _settle_result(self, task: Task, result: PartitionResult) -> list[Task]:
        if result.fatal is not None:
            kinds = {ExitCode.USAGE: UsageError, ExitCode.TEMPORARY: TemporaryError}
            raise kinds.get(result.fatal, JobError)(result.error)
        if result.error is not None:
            return self._settle_failure(task, result.error, died=result.died)
        self.tally.writer.publish(task.name, replaces=task.replaces)
        self.tally.add(result)
        self.hashes.add(task.part, result.hashes)
        return []

    def _settle_death(self, task: Task) -> list[Task]:
        """The worker that had the task died: while at it, before it, or after its commit."""
        result = committed_result(task)
        if result is not None:
            return self._settle_result(task, result)
        if task.run.storage.exists(task.run.started_marker(task.key)):
            return self._settle_failure(task, DIED, died=True)
        if task.attempt >= MOST_ATTEMPTS:
            raise JobError(f"the workers die before they come to part {task.name}")
        return [again(task)]

    def _settle_failure(self, task: Task, error: str, *, died: bool) -> list[Task]:
        self.tally.event("failed", task.name, images=task.images, error=error)
        reason = error.strip().splitlines()[-1]  # of a traceback
        follow_ups = after_failure(task, reason, died=died)
        if not follow_ups:
            raise JobError(f"part {task.name} cannot even be recorded as crashed: {reason}")
        parts = self.tally.writer.parts
        if len(follow_ups) > 1 and not parts.revoke(task.name, replaces=task.replaces):
            result = committed_result(task)  # by a worker that only seemed dead
            return self._settle_result(task, result) if result else [again(task)]
        if follow_ups[0].verdict is not None and task.verdict is None:
            self._give_up_if_nothing_works(reason)
        return follow_ups

    def _give_up_if_nothing_works(self, reason: str) -> None:
        crashed = self.tally.statuses[Status.CRASHED]
        if crashed == self.tally.images >= CRASHES_TO_GIVE_UP:
            self.tally.writer.parts.end()
            self.tally.take_back()
            raise JobError(f"{crashed} images failed one by one, and none succeeded: {reason}")
