"""What becomes of a task that has ended: it is counted, tried again, split, or given up.

A failed task is submitted again, then split until the image at fault stands alone; its row says so.
Dask blames every task that a dead worker had been given; the markers (worker.py) say which one was
running, and the watchdog (watchdog.py) which images were open, so that they are captioned apart.
"""

from concurrent.futures import CancelledError
from dataclasses import replace

from distributed import Future

from captioner.budget import Spending
from captioner.jobs.errors import ExitCode, JobError, TemporaryError, UsageError
from captioner.jobs.execution.cluster.submissions import LostTask, result_of
from captioner.jobs.execution.cluster.workers import Workers
from captioner.jobs.execution.record.recorder import Recorder
from captioner.jobs.execution.tasks.death import Death, Deaths, after_death
from captioner.jobs.execution.tasks.drawn import take_drawn
from captioner.jobs.execution.tasks.outages import Outages
from captioner.jobs.execution.tasks.purse import Purse
from captioner.jobs.execution.tasks.task import PartitionResult, Task, after_failure, resubmitted
from captioner.jobs.execution.worker.sight import first_seen_of
from captioner.jobs.execution.worker.worker import committed_result
from captioner.jobs.pipeline.answers import forget_answers
from captioner.jobs.pipeline.hash_index import HashLog
from captioner.schemas.caption_table import Status

MAX_SUBMISSIONS = 20  # of a task that never began
CRASHES_TO_GIVE_UP = 10  # if no image succeeded
BROKEN = (Status.CRASHED, Status.TIMEOUT, Status.OUT_OF_MEMORY)


class Settling:
    """Settles the tasks of a run, one after the other; `outages` keeps what hosts did not give."""

    def __init__(
        self, workers: Workers, recorder: Recorder, purse: Purse, outages: Outages
    ) -> None:
        self.workers, self.outages, self.purse = workers, outages, purse
        self.recorder, self.writer = recorder, recorder.writer
        self.deaths = Deaths()
        self.hash_log = HashLog(self.writer.run)

    def settle(self, task: Task, future: "Future[PartitionResult]") -> list[Task]:
        """Count a committed task; otherwise return the tasks to run instead."""
        try:
            result: PartitionResult = result_of(future)
        except LostTask:
            return self.settle_dead(task)
        except CancelledError as error:
            raise TemporaryError("the connection to the Dask scheduler was lost") from error
        self._pay(task, take_drawn(task) if result.died else result.spent)
        return self.settle_result(task, result)

    def _pay(self, task: Task, spent: Spending | None) -> None:
        """Pay once for each submission of a task."""
        self.purse.settle(task.allowance, spent or Spending())
        self.recorder.spent = self.purse.spent

    def settle_result(self, task: Task, result: PartitionResult) -> list[Task]:
        """Settle a task by its result; see `settle`."""
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

    def settle_dead(self, task: Task) -> list[Task]:
        """Settle a task whose worker died, before it began, during it, or after its commit."""
        drawn = take_drawn(task)
        self._pay(task, drawn)
        return self._settle_death(task, began=drawn is not None)

    def _settle_death(self, task: Task, *, began: bool) -> list[Task]:
        result = committed_result(task)
        if result is not None:
            return self.settle_result(task, result)
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
            return self.settle_result(task, result) if result else [resubmitted(task)]
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
