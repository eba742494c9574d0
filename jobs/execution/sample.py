"""Time some images on the workers of a job, for `captioner plan`."""

import time
import traceback
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from captioner.jobs.errors import JobError
from captioner.jobs.execution.task import Task
from captioner.jobs.execution.worker import (
    _ONE_AT_A_TIME,
    _configure,
    _load_captioner,
    _metadata,
    _passthrough,
)
from captioner.jobs.pipeline.partition import Seconds, caption_rows, reader_count
from captioner.jobs.pipeline.settings import WorkerSettings
from captioner.jobs.storage.failures import without_secrets
from captioner.jobs.table.commits.commit import part_bytes
from captioner.jobs.table.layout import OutFolder
from captioner.schemas.caption_table import rows_to_table

if TYPE_CHECKING:
    from captioner.captioner import Captioner


@dataclass(frozen=True)
class SampleTimes:
    """What some images took one worker: in all, and by stage, summed over its `readers`.

    In a Parquet file their rows take `row_bytes`, and all else `file_bytes`.
    """

    images: int
    seconds: float
    stages: Mapping[str, float]
    readers: int
    row_bytes: int
    file_bytes: int


def time_sample(settings: WorkerSettings, plan: pa.Table) -> SampleTimes:
    """Caption images without committing them, and say what they took, once the model is warm.

    CaptionerError if there is no captioner, JobError if an image breaks it.
    """
    task = Task(OutFolder(Path()).new_run(), settings, 0, plan.num_rows, 0, plan.num_rows)
    with _ONE_AT_A_TIME:
        _configure(settings.storage_options, task.run.run_id)
        captioner = _load_captioner(settings, task.run.run_id)
        try:
            return _sample_times(task, plan, captioner)
        except Exception as error:  # noqa: BLE001 (the boundary)
            (reason,) = traceback.format_exception_only(error)[-1:]
    # Here, because in the handler it would take the error along, which may not be pickled.
    raise JobError(f"an image that was to be timed failed: {without_secrets(reason.strip())}")


def _sample_times(task: Task, plan: pa.Table, captioner: "Captioner") -> SampleTimes:
    caption_rows(plan.slice(0, 1), task.run, task.settings, captioner, defaultdict(float))
    stages: Seconds = defaultdict(float)
    start = time.perf_counter()
    rows, _ = caption_rows(plan, task.run, task.settings, captioner, stages)
    seconds = time.perf_counter() - start
    table = rows_to_table(rows, _passthrough(task, plan), _metadata(task, captioner))
    row_bytes, file_bytes = part_bytes(table)
    return SampleTimes(task.size, seconds, dict(stages), reader_count(), row_bytes, file_bytes)
