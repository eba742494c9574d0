"""Time some images on the workers of a job, for `captioner plan`."""

import secrets
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from captioner.jobs.errors import JobError
from captioner.jobs.execution.run_state import ONE_AT_A_TIME, state_of
from captioner.jobs.pipeline.partition import PartitionCaptioner
from captioner.jobs.pipeline.settings import WorkerSettings
from captioner.jobs.pipeline.stage_times import StageTimes
from captioner.jobs.storage.failures import without_secrets
from captioner.schemas.caption_table import rows_to_table
from captioner.schemas.image_record import passthrough_of, records_of


@dataclass(frozen=True)
class SampleTimes:
    """The seconds that a worker took for images, in total and by stage (over several threads).

    In a Parquet file their rows take `row_bytes`, and everything else `file_bytes`.
    """

    images: int
    seconds: float
    stages: Mapping[str, float]
    row_bytes: int
    file_bytes: int


def time_sample(settings: WorkerSettings, plan: pa.Table) -> SampleTimes:
    """Caption images without committing them; return the times, taken once the model is warm.

    Raise CaptionerError if the captioner cannot be loaded, JobError if an image breaks it.
    """
    name = f"sample-{secrets.token_hex(2)}"  # a run of its own, which loads the model as it is now
    with ONE_AT_A_TIME:
        captioner = state_of(name, settings).captioner
        try:
            return _sample_times(PartitionCaptioner(captioner, settings, name), plan)
        except Exception as error:  # noqa: BLE001 (the boundary)
            (reason,) = traceback.format_exception_only(error)[-1:]
    # Not raised in the handler, which would attach the original error: that may not pickle.
    raise JobError(f"a sample image failed: {without_secrets(reason.strip())}")


def _sample_times(partitions: PartitionCaptioner, plan: pa.Table) -> SampleTimes:
    partitions.caption(records_of(plan.slice(0, 1)), StageTimes())
    times = StageTimes()
    start = time.perf_counter()
    rows = partitions.caption(records_of(plan), times).rows
    seconds = time.perf_counter() - start
    table = rows_to_table(rows, passthrough_of(plan), partitions.file_metadata())
    row_bytes, file_bytes = _part_bytes(table)
    stages = dict(times.seconds)
    return SampleTimes(plan.num_rows, seconds, stages, row_bytes, file_bytes)


def _part_bytes(table: pa.Table) -> tuple[int, int]:
    """Return how many bytes a part would have: those of its rows, and all others."""
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, table.schema, compression="zstd", write_statistics=True) as writer:
        writer.write_table(table)
    file = sink.getvalue()
    groups = pq.ParquetFile(pa.BufferReader(file)).metadata
    columns = range(groups.num_columns)
    rows = sum(groups.row_group(0).column(number).total_compressed_size for number in columns)
    return rows, file.size - rows
