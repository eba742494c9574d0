"""A task on a worker: the model, once a process; a partition's rows; the commit.

torch is imported with the first task, so that the driver, which only names `caption_partition`,
does without.
"""

import functools
import json
import threading
import traceback
from collections import Counter, defaultdict
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from captioner.errors import CaptionerError
from captioner.jobs.errors import ExitCode
from captioner.jobs.execution.task import DIED, PartitionResult, Task
from captioner.jobs.pipeline.known_captions import digits, known_captions
from captioner.jobs.pipeline.partition import Seconds, caption_rows, timed
from captioner.jobs.pipeline.settings import WorkerSettings
from captioner.jobs.planning.partitions import read_partition
from captioner.jobs.storage.failures import StoreError, without_secrets
from captioner.jobs.storage.filesystems import configure
from captioner.jobs.table.commits.commit import commit
from captioner.schemas.caption_table import Status, file_metadata, rows_to_table
from captioner.schemas.image_record import REPLACES, passthrough_of

if TYPE_CHECKING:
    from captioner.captioner import Captioner

_ONE_AT_A_TIME = threading.Lock()


def caption_partition(task: Task) -> PartitionResult:
    """Caption the images of a task and commit their rows; every failure comes back as a result.

    One at a time in a process, with a mark (a file) that is there meanwhile: when the process
    dies, the mark stays behind and says which task it was at.
    """
    with _ONE_AT_A_TIME:
        _configure(task.settings.storage_options, task.run.run_id)
        storage, mark = task.run.storage, task.run.started_marker(task.key)
        try:
            storage.create(mark)
        except FileExistsError:  # the scheduler tries again what a process has died of
            return PartitionResult(task.name, error=DIED, died=True)
        except OSError as error:
            return _cannot_write(task, error)
        try:
            return committed_result(task) or _caption_and_commit(task)
        except Exception:  # noqa: BLE001 (the boundary: no task may break the run)
            return PartitionResult(task.name, error=without_secrets(traceback.format_exc()))
        finally:
            with suppress(OSError):  # its attempt is over, so nobody asks for it
                storage.remove(mark)


def committed_result(task: Task) -> PartitionResult | None:
    """The result of a task whose part is in the table already; None if it is not."""
    if not task.run.storage.exists(task.part):
        return None
    columns = ["status", "needs_review", "image_sha256"]
    rows = pq.read_table(task.run.storage.open(task.part), columns=columns).to_pydict()
    to_review = rows["needs_review"].count(True)
    pairs = zip(rows["status"], rows["image_sha256"], strict=True)
    hashes = digits([sha256 for status, sha256 in pairs if status == Status.OK])
    return PartitionResult(
        task.name, Counter(rows["status"]), needs_review=to_review, hashes=hashes
    )


def _caption_and_commit(task: Task) -> PartitionResult:
    try:
        captioner = _load_captioner(task.settings, task.run.run_id)
    except CaptionerError as error:
        return PartitionResult(task.name, error=str(error), fatal=ExitCode.USAGE)
    seconds: Seconds = defaultdict(float)
    plan = read_partition(task.run.scratch, task.partition).slice(task.start, task.images)
    rows, new = caption_rows(plan, task.run, task.settings, captioner, seconds, task.verdict)
    table = rows_to_table(rows, _passthrough(task, plan), _metadata(task, captioner))
    try:
        timed(seconds, "commit", lambda: commit(table, task.run, task.name, replaces=task.replaces))
    except OSError as error:
        return _cannot_write(task, error)
    statuses = Counter(str(row.status) for row in rows)
    to_review = sum(row.needs_review is True for row in rows)
    reused = statuses[Status.OK] - len(new)
    hashes = digits(new)
    known_captions(task.run, captioner.identity).add(task.part, hashes)
    return PartitionResult(
        task.name, statuses, seconds, captioner.identity, to_review, reused, hashes
    )


def _passthrough(task: Task, plan: pa.Table) -> pa.Table:
    """The columns that go from the plan to the part as they are."""
    return passthrough_of(plan, keep=(REPLACES,) if task.replaces else ())


def _metadata(task: Task, captioner: "Captioner") -> dict[bytes, bytes]:
    """What the file of a part says of its origin."""
    threshold = task.settings.threshold
    return file_metadata(
        {captioner.identity: captioner.settings}, asdict(threshold) if threshold else None
    )


def _cannot_write(task: Task, error: OSError) -> PartitionResult:
    message = f"cannot write to {task.run.out.root}: {without_secrets(str(error))}"
    return PartitionResult(task.name, error=message, fatal=_exit_code(error))


def _exit_code(error: OSError) -> ExitCode:
    """Return how a run ends that cannot write; a store may accept later what it refuses now."""
    if not isinstance(error, StoreError):
        return ExitCode.FAULT
    return ExitCode.USAGE if error.is_final else ExitCode.TEMPORARY


@functools.lru_cache(maxsize=1)
def _configure(storage_options: str, _run_id: str) -> None:
    """Have all that this process opens from here on use a run's storage options."""
    configure(json.loads(storage_options))


@functools.lru_cache(maxsize=1)
def _load_captioner(settings: WorkerSettings, _run_id: str) -> "Captioner":
    """The captioner of a run, once a process; the next run may find other weights there."""
    from captioner.allocator import keep_freed_memory
    from captioner.captioner import Captioner

    keep_freed_memory()
    return Captioner.load(settings.checkpoint, device=settings.device, search=settings.search)
