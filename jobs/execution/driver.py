"""The driver of a run: it keeps few tasks in flight, and loses nothing when one fails.

A failed task is submitted again, then split until the image at fault stands alone; its row says so.
Dask blames every task that a dead worker had been given; the markers (worker.py) say which one was
running, and the watchdog (watchdog.py) which images were open, so that they are captioned apart.
Dask's own retries are not used, because they cannot isolate an image.
"""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import CancelledError
from contextlib import suppress
from dataclasses import replace
from functools import partial

from distributed import Future

from captioner.budget import Spending
from captioner.jobs.config.job import JobConfig
from captioner.jobs.errors import ExitCode, JobError, TemporaryError, UsageError
from captioner.jobs.execution.cluster.connect import connect
from captioner.jobs.execution.cluster.scheduler import sendable
from captioner.jobs.execution.cluster.submissions import LostTask, Submissions, result_of
from captioner.jobs.execution.cluster.workers import POLL_SECONDS, Workers, tell
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
from captioner.jobs.execution.worker.batches import caption_and_report, receiving
from captioner.jobs.execution.worker.sight import first_seen_of
from captioner.jobs.execution.worker.worker import committed_result
from captioner.jobs.pipeline.answers import forget_answers
from captioner.jobs.pipeline.hash_index import HashLog
from captioner.jobs.pipeline.settings import WorkerSettings
from captioner.schemas.caption_table import Status

TASKS_PER_THREAD = 2  # in flight: one running, one waiting
MAX_SUBMISSIONS = 20  # of a task that never began
CRASHES_TO_GIVE_UP = 10  # if no image succeeded
BROKEN = (Status.CRASHED, Status.TIMEOUT, Status.OUT_OF_MEMORY)


def caption_plan(config: JobConfig, settings: WorkerSettings, recorder: Recorder) -> None:
    """Caption all images of the plan; raise JobError for a fault that would hit every image."""
    plan, run = recorder.plan, recorder.writer.run
    settings = sendable(config, settings)
    with (
        connect(config, settings.captioner, plan.images, partial(tell, recorder.keep)) as workers,
        receiving(workers.client, recorder.report),
    ):
        settings = replace(settings, identity=workers.identity)
        tasks = tasks_of(plan, run, settings, len(workers.threads))
        _Driver(workers, tasks, recorder, Purse(config)).run()


class _Driver:
    """The loop that keeps the workers busy until no task is left."""

    def __init__(
        self, workers: Workers, tasks: Iterator[Task], recorder: Recorder, purse: Purse
    ) -> None:
        self.workers = workers
        self.tasks = tasks  # not submitted yet
        self.waiting: deque[Task] = deque()  # to submit before those
        self.running: dict[str, Task] = {}  # by key
        self.deaths = Deaths()
        self.submissions = Submissions(workers)
        self.recorder, self.writer = recorder, recorder.writer
        self.hash_log = HashLog(self.writer.run)
        self.purse = purse
        self.outages = Outages()

    def run(self) -> None:
        """Run the tasks that a server allows. Few are in flight, so Dask's graph stays small."""
        try:
            self._run()
            self.outages.stop(self.recorder)
        except KeyboardInterrupt:
            self._count_committed()
            raise

    def _run(self) -> None:
        self._top_up()
        while self.running or (not self.workers.threads and self._has_more()):
            future = self.submissions.next_ended(POLL_SECONDS)
            if future is not None:
                task = self.running[str(future.key)]
                self._follow(task, self._settle(task, future))
            self.workers.update()  # some may have joined, or gone
            self._settle_stranded()
            self._top_up()

    def _count_committed(self) -> None:
        """Stop all commits; count the parts that workers had committed and not yet reported."""
        self.writer.parts.end()
        for task in self.running.values():
            with suppress(OSError, JobError):  # of a store; the parts are there, counted or not
                self._count_if_committed(task)

    def _count_if_committed(self, task: Task) -> None:
        part = self.writer.run.part(task.name, replaces=task.replaces)
        is_new = self.recorder.is_at_work(task.key) and self.writer.storage.exists(part)
        if is_new and (result := committed_result(task)):
            self.recorder.add(result, task.key)

    def _has_more(self) -> bool:
        """Return whether there are tasks for a worker that may come."""
        if not self.waiting and (task := next(self.tasks, None)):
            self.waiting.append(task)
        return bool(self.waiting or self.outages.has_waiting) and not self.recorder.stopped

    def _follow(self, task: Task, others: list[Task]) -> None:
        self.waiting.extendleft(reversed(others))
        del self.running[task.key]
        self.recorder.end(task.key)

    def _settle_stranded(self) -> None:
        """Settle tasks that no worker can have any more, as if their worker had died."""
        for key in self.submissions.give_up_stranded():
            task = self.running[key]
            self._follow(task, self._settle_dead(task))

    def _top_up(self) -> None:
        threads = self.workers.threads
        self.recorder.workers = max(self.recorder.workers, len(threads))
        while len(self.running) < TASKS_PER_THREAD * sum(threads.values()):
            task = self._next_task()
            if task is None:
                return
            self.running[task.key] = task
            self.recorder.begin(task.key)
            self.submissions.submit(caption_and_report, task, key=task.key)

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
            result: PartitionResult = result_of(future)
        except LostTask:
            return self._settle_dead(task)
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
        if result.unfit is not None:
            self.workers.refuse(str(result.worker), result.unfit)
            return [resubmitted(task)]
        if result.images:
            self.writer.publish(task.name, replaces=task.replaces)
        self.recorder.add(result, task.key)
        self.hash_log.add(task.part, result.new_digits)
        forget_answers(self.writer.run, result.answers)
        self.outages.stop_if_all_are_late(task, result, self.recorder)
        if result.unavailable:
            self.recorder.stopped, self.recorder.is_outage = result.unavailable, True
        missing = self._are_missing(task, result)
        return self.outages.follow_up(replace(task, records_missing=missing), result)

    def _are_missing(self, task: Task, result: PartitionResult) -> bool:
        """Return whether the driver cannot find what a worker cannot find; else refuse that one."""
        if not result.missing:
            return task.records_missing
        seen = first_seen_of(task, result.missing)
        if seen is not None:
            self.workers.refuse(str(result.worker), f"it cannot read {seen}, which is there")
        return seen is None

    def _settle_dead(self, task: Task) -> list[Task]:
        drawn = take_drawn(task)
        self._pay(task, drawn)
        return self._settle_death(task, began=drawn is not None)

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
