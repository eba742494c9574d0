"""One task on a worker: caption and commit. The first one imports torch; the driver never does."""

import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from captioner.budget import Budget
from captioner.errors import BudgetSpent, CaptionerError
from captioner.jobs.execution.record.examples import COLUMNS, examples_of
from captioner.jobs.execution.tasks.drawn import budget_of, mark
from captioner.jobs.execution.tasks.listed import planned, row_numbers
from captioner.jobs.execution.tasks.outages import outages_of
from captioner.jobs.execution.tasks.task import DIED, PartitionResult, Task
from captioner.jobs.execution.worker.cannot import (
    cannot_caption,
    cannot_load,
    cannot_start,
    cannot_write,
    has_changed,
)
from captioner.jobs.execution.worker.run_state import ONE_AT_A_TIME, RunState, state_of
from captioner.jobs.execution.worker.sight import missing_images
from captioner.jobs.execution.worker.watch import Limits, watching
from captioner.jobs.fetching.container_reader import Watch, unwatched
from captioner.jobs.pipeline.former import read_former_rows
from captioner.jobs.pipeline.hash_index import first_digits
from captioner.jobs.pipeline.partition import CaptionedImages, PartitionCaptioner
from captioner.jobs.pipeline.stage_times import StageTimes
from captioner.jobs.storage.attempts.faults import machine_fault
from captioner.jobs.storage.attempts.hosts import suspect
from captioner.jobs.storage.failures import without_secrets
from captioner.jobs.table.commits.commit import commit
from captioner.jobs.table.embeddings import commit_embeddings
from captioner.schemas.caption_table import CaptionRow, Status, rows_to_table
from captioner.schemas.image_record import IMAGE_URI, REPLACES, passthrough_of, records_of
from captioner.schemas.job_report import DECLINED

Report = Callable[[int], None]  # called with the number of images done so far


@dataclass(frozen=True)
class Host:
    """The process that a task runs in: its limits, None for any, and to whom the task reports.

    It says that it `waits` for an image of another host, with its URI. Once the task
    `is_abandoned`, it ends soon.
    """

    report: Report = lambda done: None
    waits: Callable[[str], None] = lambda uri: None
    is_abandoned: Callable[[], bool] = lambda: False
    limits: Limits | None = None
    watch: Watch = unwatched


def caption_partition(task: Task, host: Host = Host()) -> PartitionResult:
    """Caption the images of a task and commit their rows; return failures as results, too.

    A process runs one task at a time. A marker file exists meanwhile: if the process dies, the
    marker stays and says which task killed it, and what it had drawn from the purse.
    """
    with ONE_AT_A_TIME:
        state = state_of(task.run.run_id, task.settings)
        suspect(task.suspects)
        storage, marker = task.run.storage, task.run.started_marker(task.key)
        try:
            mark(task)
        except FileExistsError:  # the scheduler resubmits a task whose process died
            return PartitionResult(task.name, error=DIED, died=True)
        except OSError as error:
            return cannot_write(task, error)
        budget = budget_of(task)
        with watching(task, host.limits) as watch:
            result = _result_or_error(task, state, budget, replace(host, watch=watch))
        if not task.allowance.is_limited:
            with suppress(OSError):  # this submission is over, so nobody reads its marker
                storage.remove(marker)
        return replace(result, spent=budget.spent)


def _result_or_error(task: Task, state: RunState, budget: Budget, host: Host) -> PartitionResult:
    try:
        return committed_result(task) or _caption_and_commit(task, state, budget, host)
    except Exception:  # noqa: BLE001 (the boundary: no task may break the run)
        return PartitionResult(task.name, error=without_secrets(traceback.format_exc()))


def committed_result(task: Task) -> PartitionResult | None:
    """Return the result of a task if its part has been committed already, else None."""
    storage = task.run.storage
    if not storage.exists(task.part):
        return None
    columns = [*COLUMNS, "needs_review", "image_sha256", "run_id"]
    table = pq.read_table(storage.open(task.part), columns=columns)
    rows = table.to_pydict()
    to_review = rows["needs_review"].count(True)
    outcomes = [_outcome(task, *row) for row in zip(rows["status"], rows["run_id"], strict=True)]
    pairs = zip(outcomes, rows["image_sha256"], strict=True)
    digits = first_digits([sha256 for outcome, sha256 in pairs if outcome == Status.OK])
    return PartitionResult(
        task.name,
        Counter(outcomes),
        needs_review=to_review,
        new_digits=digits,
        examples=examples_of(table),
        left=() if len(table) == task.images else _left(task, planned(task), rows[IMAGE_URI]),
    )


def _left(task: Task, plan: pa.Table, done: Iterable[str]) -> list[int]:
    """Return the rows whose images have none in the table."""
    return row_numbers(task, plan, set(plan[IMAGE_URI].to_pylist()).difference(done))


def _caption_and_commit(task: Task, state: RunState, budget: Budget, host: Host) -> PartitionResult:
    try:
        captioner = state.captioner
    except (CaptionerError, ImportError, OSError, MemoryError, RuntimeError) as error:
        return cannot_load(task, error)
    if task.settings.identity not in (None, captioner.identity):
        return PartitionResult(task.name, unfit=f"its captioner is now {captioner.identity}")
    if task.settings.planned_identity not in (None, captioner.identity):
        return has_changed(task, captioner.identity)
    start = time.perf_counter()
    host.report(0)
    plan = planned(task)
    known = state.known_captions(task.run)
    captioner.budget, captioner.is_abandoned = budget, host.is_abandoned
    former = _former_rows(task, plan)
    partitions = PartitionCaptioner(
        *(captioner, task.settings, task.run.run_id, known.find, host.report),
        *(former, host.watch, host.waits),
    )
    times = StageTimes()
    try:
        captioner.answers = answers = state.answers(task.run)
        images = _caption(task, plan, partitions, times)
        missing = _leave_missing(task, plan, images)
        table = _table(task, plan, images.rows, partitions)
        with times.measure("commit"):
            _commit(task, table, images, partitions)
    except CaptionerError as error:
        return cannot_caption(task, error)
    except OSError as error:
        return cannot_write(task, error)
    except RuntimeError as error:
        if fault := machine_fault(error):
            return cannot_start(task, fault)
        raise
    known.add(task.part, first_digits([*images.new]))
    return replace(
        _result(task, images, times),
        captioner=captioner.identity,
        examples=examples_of(table),
        left=_left(task, plan, (row.image_uri for row in images.rows)),
        missing=row_numbers(task, plan, missing),
        answers=answers.used,
        took=time.perf_counter() - start,
    )


def _former_rows(task: Task, plan: pa.Table) -> Mapping[str, CaptionRow]:
    """Return the rows about which the captioner gives a second opinion."""
    return read_former_rows(task.run, plan) if task.settings.second_opinion else {}


def _caption(
    task: Task, plan: pa.Table, partitions: PartitionCaptioner, times: StageTimes
) -> CaptionedImages:
    if task.crash_reason is not None:
        rows = partitions.crashed_rows(records_of(plan), task.crash_reason, task.status)
        return CaptionedImages(rows)
    return partitions.caption(records_of(plan), times)


def _leave_missing(task: Task, plan: pa.Table, images: CaptionedImages) -> set[str]:
    """Leave the images that only this worker may be unable to find; return their URIs."""
    if task.settings.identity is None or task.records_missing:
        return set()
    missing = missing_images(records_of(plan), images.rows)
    images.rows = [row for row in images.rows if row.image_uri not in missing]
    return missing


def _table(
    task: Task, plan: pa.Table, rows: Sequence[CaptionRow], partitions: PartitionCaptioner
) -> pa.Table:
    """Return the rows with the columns that a manifest passes through."""
    passthrough = passthrough_of(plan, keep=(REPLACES,) if task.replaces else ())
    if len(rows) < len(plan):  # some images were left
        uris = pa.array([row.image_uri for row in rows], pa.string())
        passthrough = passthrough.take(pc.index_in(uris, plan[IMAGE_URI]))
    return rows_to_table(rows, passthrough, partitions.file_metadata())


def _commit(
    task: Task, table: pa.Table, images: CaptionedImages, partitions: PartitionCaptioner
) -> None:
    if not images.rows:
        return
    vectors = {sha256: vector for sha256, vector in images.new.items() if vector is not None}
    if vectors:
        metadata = partitions.file_metadata()
        commit_embeddings(task.run, task.name, images.rows, vectors, metadata)
    commit(table, task.run, task.name, replaces=task.replaces)


def _outcome(task: Task, status: str, run_id: str) -> str:
    """Return the status of a row of this run, or that the row of another one stayed."""
    return str(status) if run_id == task.run.run_id else DECLINED


def _result(task: Task, images: CaptionedImages, times: StageTimes) -> PartitionResult:
    statuses = Counter(_outcome(task, row.status, row.run_id) for row in images.rows)
    why = images.unavailable
    return PartitionResult(
        task.name,
        statuses,
        seconds=times.seconds,
        needs_review=sum(row.needs_review is True for row in images.rows),
        reused=max(statuses[Status.OK] - len(images.new), 0),
        new_digits=first_digits([*images.new]),
        unavailable=None if why is None or isinstance(why, BudgetSpent) else str(why),
        down=outages_of(error for _, error in images.down),
    )
