"""The driver of a run: it keeps few tasks in flight, and loses nothing when one fails.

A failed task is submitted again, then split until the image at fault stands alone; its row says so.
Dask blames every task that a dead worker had been given; the markers (worker.py) say which one was
running, and the watchdog (watchdog.py) which images were open, so that they are captioned apart.
Dask's own retries are not used, because they cannot isolate an image.
"""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import suppress
from dataclasses import replace
from functools import partial

import pyarrow as pa
from distributed import Client, Future, KilledWorker, as_completed

from captioner.budget import Spending
from captioner.jobs.config.job import JobConfig
from captioner.jobs.errors import ExitCode, JobError, TemporaryError, UsageError
from captioner.jobs.execution.cluster.connect import connect
from captioner.jobs.execution.record.recorder import Recorder
from captioner.jobs.execution.tasks.death import Death, Deaths, after_death
from captioner.jobs.execution.tasks.drawn import take_drawn
from captioner.jobs.execution.tasks.outages import Outages
from captioner.jobs.execution.tasks.purse import NOTHING, Purse
from captioner.jobs.execution.tasks.task import (
    PartitionResult,
    Task,
    after_failure,
    resubmitted,
    tasks_of,
)
from captioner.jobs.execution.worker.batches import (
    caption_and_report,
    receiving,
    time_and_watch,
)
from captioner.jobs.execution.worker.sample import SampleTimes
from captioner.jobs.execution.worker.worker import committed_result
from captioner.jobs.messages import say
from captioner.jobs.pipeline.answers import forget_answers
from captioner.jobs.pipeline.hash_index import HashLog
from captioner.jobs.pipeline.settings import WorkerSettings
from captioner.schemas.caption_table import Status

TASKS_PER_THREAD = 2  # in flight: one running, one waiting
MAX_SUBMISSIONS = 20  # of a task that never began
CRASHES_TO_GIVE_UP = 10  # if no image succeeded
BROKEN = (Status.CRASHED, Status.TIMEOUT, Status.OUT_OF_MEMORY)
LATE_TO_STOP = 10  # one after the other, with no success between
Samples = Callable[[int], list[pa.Table]]  # the images that each of n workers times


def caption_plan(config: JobConfig, settings: WorkerSettings, recorder: Recorder) -> None:
    """Caption all images of the plan; raise JobError for a fault that would hit every image."""
    plan, run = recorder.plan, recorder.writer.run
    with connect(config, plan.images) as client, receiving(client, recorder.report):
        if config.scheduler and not config.quiet:
            _tell_dashboard(client)
        tasks = tasks_of(plan, run, settings, len(client.nthreads()))
        _Driver(client, tasks, recorder, Purse(config)).run()


def _tell_dashboard(client: Client) -> None:
    with suppress(KeyError):  # a scheduler without one
        say(f"Dask's dashboard is at {client.dashboard_link}", "dashboard")


def time_samples(
    config: JobConfig, settings: WorkerSettings, images: int, samples: Samples
) -> tuple[list[SampleTimes], int]:
    """Time `samples(workers)`, one per worker; return times, workers. JobError if a worker dies."""
    with connect(config, images) as client:
        workers = len(client.nthreads())
        tables = samples(workers)
        allowance = Purse(config).divided(len(tables))
        submit = partial(client.submit, time_and_watch, settings, pure=False)
        futures = [submit(table, allowance) for table in tables]
        try:
            return client.gather(futures), workers
        except KilledWorker as error:
            raise JobError(
                "one of the sample images killed its process, or took too much time or memory"
            ) from error


class _Driver:
    """The loop that keeps the workers busy until no task is left."""

    def __init__(
        self, client: Client, tasks: Iterator[Task], recorder: Recorder, purse: Purse
    ) -> None:
        self.client = client
        self.tasks = tasks  # not submitted yet
        self.waiting: deque[Task] = deque()  # to submit before those
        self.running: dict[str, Task] = {}  # by key
        self.late = 0
        self.deaths = Deaths()
        self.completed = as_completed(loop=client.loop)
        self.recorder, self.writer = recorder, recorder.writer
        self.hash_log = HashLog(self.writer.run)
        self.purse = purse
        self.outages = Outages()

    def run(self) -> None:
        """Run the tasks that a server allows. Few are in flight, so Dask's graph stays small."""
        try:
            self._top_up()
            for future in self.completed:
                task = self.running[future.key]
                self.waiting.extendleft(reversed(self._settle(task, future)))
                del self.running[future.key]
                self.recorder.end(task.key)
                self._top_up()
            self.outages.stop(self.recorder)
        except KeyboardInterrupt:
            self._count_committed()
            raise

    def _count_committed(self) -> None:
        """Stop all commits; count the parts that workers had committed and not yet reported."""
        self.writer.parts.end()
        for task in self.running.values():
            part = self.writer.run.part(task.name, replaces=task.replaces)
            is_new = self.recorder.is_at_work(task.key) and self.writer.storage.exists(part)
            if is_new and (result := committed_result(task)):
                self.recorder.add(result, task.key)

    def _top_up(self) -> None:
        threads = self.client.nthreads()  # by worker; some may have joined
        self.recorder.workers = max(self.recorder.workers, len(threads))
        while len(self.running) < TASKS_PER_THREAD * max(sum(threads.values()), 1):
            task = self._next_task()
            if task is None:
                return
            self.running[task.key] = task
            self.recorder.begin(task.key)
            self.completed.add(self.client.submit(caption_and_report, task, key=task.key))

    def _next_task(self) -> Task | None:
        """Return the next task, with what it may spend; None if there is none now."""
        for crashed in self.waiting:
            if crashed.crash_reason is not None:  # nothing is asked about its image
                self.waiting.remove(crashed)
                return replace(crashed, allowance=NOTHING)
        if self.recorder.is_outage:
            return None
        task = self.waiting.popleft() if self.waiting else next(self.tasks, None)
        task = task or self.outages.next(all_else_is_done=not self.running)
        return None if task is None else self._with_allowance(task)

    def _with_allowance(self, task: Task) -> Task | None:
        """Return a task with what it may spend, or let it wait until others give back."""
        allowance = self.purse.allow(task.images << task.rounds)
        if allowance is not None:
            return replace(task, allowance=allowance, suspects=self.outages.suspects)
        self.waiting.appendleft(task)
        if not self.running:
            self.recorder.stopped = self.purse.limits_reached()
        return None

    def _settle(self, task: Task, future: "Future[PartitionResult]") -> list[Task]:
        """Count a committed task; otherwise return the tasks to run instead."""
        try:
            result = future.result()
        except KilledWorker:
            drawn = take_drawn(task)
            self._pay(task, drawn)
            return self._settle_death(task, began=drawn is not None)
        except CancelledError as error:
            raise TemporaryError("the connection to the Dask scheduler was lost") from error
        self._pay(task, take_drawn(task) if result.died else result.spent)
        return self._settle_result(task, result)

    def _pay(self, task: Task, spent: Spending | None) -> None:
        """Pay once for each submission of a task."""
        self.purse.settle(task.allowance, spent or Spending())
        self.recorder.spent = self.purse.spent

    def _settle_result(self, task: Task, result: PartitionResult) -> list[Task]:
        if result.fatal is not None:
            kinds = {ExitCode.USAGE: UsageError, ExitCode.TEMPORARY: TemporaryError}
            raise kinds.get(result.fatal, JobError)(result.error)
        if result.error is not None:
            error = self.deaths.of(task) if result.died else result.error
            return self._settle_failure(task, error)
        if result.images:
            self.writer.publish(task.name, replaces=task.replaces)
        self.recorder.add(result, task.key)
        self.hash_log.add(task.part, result.new_digits)
        forget_answers(self.writer.run, result.answers)
        self._stop_if_all_are_late(task, result)
        if result.unavailable:
            self.recorder.stopped, self.recorder.is_outage = result.unavailable, True
        return self.outages.follow_up(task, result)

    def _stop_if_all_are_late(self, task: Task, result: PartitionResult) -> None:
        if result.statuses.get(Status.OK):
            self.late = 0
        self.late += task.status is Status.TIMEOUT
        if self.late >= LATE_TO_STOP:
            self.recorder.is_outage = True
            self.recorder.stopped = (
                f"{self.late} images, one after the other, took too long to open: a disk or a "
                "mount may not answer any more"
            )

    def _settle_death(self, task: Task, *, began: bool) -> list[Task]:
        """Settle a task whose worker died: before it began, during it, or after its commit."""
        result = committed_result(task)
        if result is not None:
            return self._settle_result(task, result)
        if began:
            return self._settle_failure(task, self.deaths.of(task))
        if task.submissions >= MAX_SUBMISSIONS:
            raise JobError(f"the workers keep dying before they begin part {task.name}")
        return [resubmitted(task)]

    def _settle_failure(self, task: Task, error: str | Death) -> list[Task]:
        text = error.reason if isinstance(error, Death) else error
        self.recorder.event("failed", task.name, images=task.images, error=text)
        reason = text.strip().splitlines()[-1]  # of a traceback
        if isinstance(error, Death):
            follow_ups = after_death(task, error)
        else:
            follow_ups = after_failure(task, reason, died=False)
        if not follow_ups:
            raise JobError(f"part {task.name} cannot even be recorded as crashed: {reason}")
        parts = self.writer.parts
        is_other_part = {each.name for each in follow_ups} != {task.name}
        if is_other_part and not parts.revoke(task.name, replaces=task.replaces):
            result = committed_result(task)  # by a worker that seemed dead
            return self._settle_result(task, result) if result else [resubmitted(task)]
        if follow_ups[0].crash_reason is not None and task.crash_reason is None:
            self._give_up_if_nothing_works(reason)
        return follow_ups

    def _give_up_if_nothing_works(self, reason: str) -> None:
        crashed = sum(self.recorder.statuses[status] for status in BROKEN)
        if crashed == self.recorder.images >= CRASHES_TO_GIVE_UP:
            self.writer.parts.end()
            self.writer.remove_parts()  # no image was at fault itself
            self.recorder.discard_counts()
            raise JobError(f"{crashed} images failed one by one, and none succeeded: {reason}")
