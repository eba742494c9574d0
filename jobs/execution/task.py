"""What the driver asks of a worker, what it gets back, and what it asks next after a failure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from captioner.jobs.errors import ExitCode
from captioner.jobs.pipeline.settings import WorkerSettings
from captioner.jobs.planning.plan import Plan
from captioner.jobs.storage.backends.paths import OutPath
from captioner.jobs.table.commits.commit import parts_of
from captioner.jobs.table.layout import RunFolder

PARTS = 8  # of a partition that fails; three rounds find one image of 500
DIED = "the process that opened it died"
TRIES = 2  # of a partition that fails, and of one image whose process died


@dataclass(frozen=True)
class Task:
    """Rows `start` to `stop` of a partition of `size` rows; attempts count all submissions.

    `tries` counts those that failed for a reason of its own. With a `verdict`, the images are
    not opened again: they get rows with the status crashed and the verdict as error. The rows of a
    task that `replaces` others go into the table when the run ends.
    """

    run: RunFolder
    settings: WorkerSettings
    partition: int
    size: int
    start: int
    stop: int
    replaces: bool = False
    attempt: int = 0
    tries: int = 0
    verdict: str | None = None

    @property
    def images(self) -> int:
        return self.stop - self.start

    @property
    def name(self) -> str:
        """The part's name: the partition, and the rows if they are not all of it."""
        rows = "" if self.images == self.size else f"-{self.start:06d}-{self.stop:06d}"
        return f"{self.partition:06d}{rows}"

    @property
    def part(self) -> OutPath:
        """The file that the worker writes the rows to."""
        return parts_of(self.run).path(self.name, replaces=self.replaces)

    @property
    def key(self) -> str:
        """Unique on any scheduler, which takes two tasks of one key for the same."""
        return f"caption-{self.run.run_id}-{self.name}-{self.attempt}"


@dataclass(frozen=True)
class PartitionResult:
    """What became of a task: rows by status, those to review, seconds by stage; or an error.

    `reused` captions are those of identical images; the others are `hashes`' (see hash_index.py).

    `died`: an earlier process died of this attempt. `fatal`: no other task would fare better, so
    the job ends with this code.
    """

    name: str
    statuses: Mapping[str, int] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    captioner: str | None = None
    needs_review: int = 0
    reused: int = 0
    hashes: str = ""
    error: str | None = None
    died: bool = False
    fatal: ExitCode | None = None

    @property
    def images(self) -> int:
        return sum(self.statuses.values())


def tasks_of(plan: Plan, run: RunFolder, settings: WorkerSettings) -> Iterator[Task]:
    """One task for each partition."""
    for partition, size in enumerate(plan.partition_sizes):
        replaces = partition >= plan.first_redo
        yield Task(run, settings, partition, size, start=0, stop=size, replaces=replaces)


def again(task: Task) -> Task:
    """The same once more, after a failure that was not its own."""
    return replace(task, attempt=task.attempt + 1)


def after_failure(task: Task, error: str, *, died: bool) -> list[Task]:
    """What to do after a failure of the task's own: once more, then in parts.

    A partition whose worker died is not tried whole again. One image alone that fails again
    gets its verdict. Nothing is left to do if even that cannot be recorded.
    """
    tries = task.tries + 1
    if tries < TRIES and not (died and task.images > 1):
        return [replace(again(task), tries=tries)]
    if task.images > 1:
        return _split(task)
    return [] if task.verdict is not None else [replace(again(task), tries=0, verdict=error)]


def _split(task: Task) -> list[Task]:
    step = -(-task.images // PARTS)
    starts = range(task.start, task.stop, step)
    fresh = replace(task, attempt=0, tries=0)
    return [replace(fresh, start=a, stop=min(a + step, task.stop)) for a in starts]
