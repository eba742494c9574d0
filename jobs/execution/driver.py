"""The driver of a run: it keeps few tasks in flight, and loses nothing when one fails.

What fails is settled in settling.py. Dask's own retries are not used, because they cannot isolate
an image.
"""

import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial

from captioner.jobs.config.job import JobConfig
from captioner.jobs.errors import JobError
from captioner.jobs.execution.cluster.connect import connect
from captioner.jobs.execution.cluster.scheduler import sendable
from captioner.jobs.execution.cluster.submissions import Submissions
from captioner.jobs.execution.cluster.workers import POLL_SECONDS, Workers, tell
from captioner.jobs.execution.record.recorder import Recorder
from captioner.jobs.execution.settling import Settling
from captioner.jobs.execution.tasks.outages import Outages
from captioner.jobs.execution.tasks.purse import NOTHING, Purse
from captioner.jobs.execution.tasks.task import (
    Task,
    tasks_of,
)
from captioner.jobs.execution.worker.batches import caption_and_report, receiving
from captioner.jobs.execution.worker.worker import committed_result
from captioner.jobs.pipeline.settings import WorkerSettings

TASKS_PER_THREAD = 2  # in flight: one running, one waiting


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
        self.submissions = Submissions(workers)
        self.recorder, self.writer = recorder, recorder.writer
        self.purse = purse
        self.outages = Outages()
        self.settling = Settling(workers, recorder, purse, self.outages)
        self._looked = 0.0  # at the workers

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
                self._follow(task, self.settling.settle(task, future))
            self._look_at_workers()
            self._top_up()

    def _look_at_workers(self) -> None:
        """See now and then, not after each task, which workers have joined or gone.

        That asks the scheduler, and takes longer the more of them there are.
        """
        if time.monotonic() - self._looked >= POLL_SECONDS:
            self.workers.update()
            self._settle_stranded()
            self._looked = time.monotonic()

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
            self._follow(task, self.settling.settle_dead(task))

    def _top_up(self) -> None:
        threads = self.workers.threads
        self.recorder.workers = max(self.recorder.workers, len(threads))
        while len(self.running) < TASKS_PER_THREAD * sum(threads.values()):
            task = self._next_task()
            if task is None:
                return
            self.running[task.key] = task
            self.recorder.begin(task.key, task.name)
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
