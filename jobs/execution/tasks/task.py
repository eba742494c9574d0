"""The task that the driver gives to a worker, its result, and the tasks that follow a failure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from captioner.budget import Spending
from captioner.jobs.errors import ExitCode
from captioner.jobs.execution.record.examples import Examples
from captioner.jobs.execution.tasks.purse import UNLIMITED, Allowance
from captioner.jobs.pipeline.settings import WorkerSettings
from captioner.jobs.storage.backends.paths import OutPath
from captioner.jobs.table.commits.commit import parts_of
from captioner.jobs.table.layout import RunFolder
from captioner.schemas.caption_table import Status

if TYPE_CHECKING:
    from captioner.jobs.planning.plan import Plan  # which imports pandas

MIN_IMAGES = 10  # of a task that was divided for more workers: smaller batches take longer
TASKS_PER_WORKER = 4  # so that a slow one does not keep the others waiting
PARTS = 8  # subsets that a failed partition is split into; three rounds isolate one image of 500
DIED = "the process that opened it died"
MAX_FAILURES = 2  # of a partition, and of one image whose process died


@dataclass(frozen=True)
class Task:
    """Rows `start` to `stop` of a partition of `size` rows, or those among them that were `left`.

    Images are left when the allowance of a task is used up, or when their host does not answer;
    `rounds` counts how often that was. `suspects` are hosts that did not answer other workers, with
    what happened.

    The `allowance` is what it may spend on a server. `submissions` counts all but the first,
    `failures` those that failed by the task's own fault, `deaths` how often images were taken apart
    after their process had died. With a `crash_reason`, the images are not opened again: they get
    rows with this `status` and error. On a scheduler, images that were listed and that a worker
    cannot find are left, unless the driver cannot find them either and the task `records_missing`
    ones. The rows of a task that `replaces` others go into the table when the run ends.
    """

    run: RunFolder
    settings: WorkerSettings
    partition: int
    size: int
    start: int
    stop: int
    replaces: bool = False
    left: tuple[int, ...] | None = None
    rounds: int = 0
    submissions: int = 0
    failures: int = 0
    deaths: int = 0
    crash_reason: str | None = None
    status: Status = Status.CRASHED
    records_missing: bool = False
    allowance: Allowance = UNLIMITED
    suspects: Mapping[str, str] = field(default_factory=dict)

    @property
    def rows(self) -> Sequence[int]:
        """The numbers of its rows in the partition."""
        return range(self.start, self.stop) if self.left is None else self.left

    @property
    def images(self) -> int:
        return len(self.rows)

    @property
    def name(self) -> str:
        """The name of its part: the number of the partition, for a subset its rows, a number."""
        is_whole = self.stop - self.start == self.size
        rows = "" if is_whole else f"-{self.start:06d}-{self.stop:06d}"
        number = self.rounds + self.deaths  # there may be gaps in the rows
        return f"{self.partition:06d}{rows}{f'-{number}' if number else ''}"

    @property
    def part(self) -> OutPath:
        """The file that the worker writes the rows to."""
        return parts_of(self.run).path(self.name, replaces=self.replaces)

    @property
    def key(self) -> str:
        """A key for this submission alone: to Dask, tasks with the same key are the same."""
        return f"caption-{self.run.run_id}-{self.name}-{self.submissions}"


@dataclass(frozen=True)
class Outage:
    """What happened with a host that does not answer, and how many images were left.

    A host that `is_busy` does answer, but refuses requests.
    """

    reason: str
    images: int
    is_busy: bool = False


@dataclass(frozen=True)
class PartitionResult:
    """The counts of a committed task (rows by status, to review; seconds by stage), or an error.

    The whole `took` seconds, in which several threads fetched and decoded. `reused` captions were
    taken from identical images; `new_digits` are the `first_digits` (hash_index.py) of the hashes
    of all others. The images of the rows `left` have none yet, because the captioner became
    `unavailable`, the allowance was used up, or hosts are `down`. `answers` are the names of the
    paid answers that were used. Among the rows left, the `worker`, an address, could not find the
    images of the `missing` ones; it did nothing at all if it is `unfit`, for this reason. `died`
    says that this submission killed its process; `fatal`, that every task would fail, so that the
    job ends with this code.
    """

    name: str
    statuses: Mapping[str, int] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    took: float = 0.0
    captioner: str | None = None
    needs_review: int = 0
    reused: int = 0
    new_digits: str = ""
    examples: Examples = field(default_factory=Examples)
    spent: Spending = field(default_factory=Spending)
    answers: Sequence[str] = ()
    left: Sequence[int] = ()
    missing: Sequence[int] = ()
    worker: str | None = None
    unfit: str | None = None
    unavailable: str | None = None
    down: Mapping[str, Outage] = field(default_factory=dict)
    error: str | None = None
    died: bool = False
    fatal: ExitCode | None = None

    @property
    def images(self) -> int:
        return sum(self.statuses.values())


def tasks_of(
    plan: "Plan", run: RunFolder, settings: WorkerSettings, workers: int
) -> Iterator[Task]:
    """Yield one task for each partition or, in a job that is small for its workers, several."""
    counts = task_counts(plan.partition_sizes, workers)
    for partition, (size, count) in enumerate(zip(plan.partition_sizes, counts, strict=True)):
        replaces = partition >= plan.first_redo
        yield from _split(Task(run, settings, partition, size, 0, size, replaces), count)


def task_counts(partition_sizes: Sequence[int], workers: int) -> list[int]:
    """Return into how many tasks each partition is divided, so that all workers have some.

    The plan does not depend on the workers, which may be unknown when it is made.
    """
    if workers == 1:
        return [1] * len(partition_sizes)
    images = sum(partition_sizes)
    rounds = min(max(images // (workers * MIN_IMAGES), 1), TASKS_PER_WORKER)
    even = max(-(-images // (workers * rounds)), 1)  # images in a task
    return [max(min(-(-size // even), size // MIN_IMAGES), 1) for size in partition_sizes]


def resubmitted(task: Task) -> Task:
    """Return the task to submit again after a failure that was not its own fault."""
    return replace(task, submissions=task.submissions + 1)


def continued(task: Task, left: Sequence[int]) -> Task:
    """Return the task for the images that a task has left, with a part of its own."""
    task = replace(_with_gaps(task, left), submissions=0, failures=0)
    return replace(task, rounds=task.rounds + 1)


def apart(task: Task, rows: Sequence[int], **changes: Any) -> Task:
    """Return the task for some images of a task whose process died, with a part of its own."""
    task = replace(_with_gaps(task, rows), submissions=0, failures=0)
    return replace(task, deaths=task.deaths + 1, **changes)


def after_failure(
    task: Task,
    error: str,
    *,
    died: bool,
    status: Status = Status.CRASHED,
    most: int = MAX_FAILURES,
) -> list[Task]:
    """Return the tasks to run after a failure by the task's own fault: the same, or its subsets.

    A partition whose worker died is split at once. A single image that has failed as often as
    `most` gets a crash_reason and this status; if even that cannot be recorded, nothing is left to
    run.
    """
    failures = task.failures + 1
    if failures < most and not (died and task.images > 1):
        return [replace(resubmitted(task), failures=failures)]
    if task.images > 1:
        return list(_split(replace(task, submissions=0, failures=0), PARTS))
    if task.crash_reason is not None:
        return []
    return [replace(resubmitted(task), failures=0, crash_reason=error, status=status)]


def _split(task: Task, count: int) -> Iterator[Task]:
    """Yield the images of a task as at most `count` tasks of even size."""
    step = -(-task.images // count)
    for first in range(0, task.images, step):
        yield _subset(task, task.rows[first : first + step])


def _with_gaps(task: Task, rows: Sequence[int]) -> Task:
    return _subset(replace(task, left=()), rows)


def _subset(task: Task, rows: Sequence[int]) -> Task:
    left = None if task.left is None else tuple(rows)
    return replace(task, start=rows[0], stop=rows[-1] + 1, left=left)
