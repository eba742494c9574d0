"""Time some images on the workers of a job, for `captioner plan`."""

import secrets
import time
import traceback
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import pyarrow as pa
import pyarrow.parquet as pq

from captioner.budget import Spending
from captioner.errors import CaptionerError
from captioner.jobs.errors import JobError, TemporaryError
from captioner.jobs.execution.tasks.outages import outages_of, said_of
from captioner.jobs.execution.tasks.purse import Allowance
from captioner.jobs.execution.worker.run_state import ONE_AT_A_TIME, state_of
from captioner.jobs.execution.worker.watch import Limits, watching_images
from captioner.jobs.pipeline.partition import PartitionCaptioner
from captioner.jobs.pipeline.settings import WorkerSettings
from captioner.jobs.pipeline.stage_times import StageTimes
from captioner.jobs.storage.failures import without_secrets
from captioner.schemas.caption_table import Status, rows_to_table
from captioner.schemas.image_record import passthrough_of, records_of


@dataclass(frozen=True)
class SampleTimes:
    """The seconds that a worker took for images, in total and by stage (over several threads).

    In a Parquet file their rows take `row_bytes`, and everything else `file_bytes`. `spent` is what
    a server was asked. `statuses` count the images, and `error` is that of the first failed one.
    """

    images: int
    seconds: float
    stages: Mapping[str, float]
    row_bytes: int
    file_bytes: int
    spent: Spending = field(default_factory=Spending)
    statuses: Mapping[str, int] = field(default_factory=dict)
    error: str | None = None


def time_sample(
    settings: WorkerSettings, plan: pa.Table, allowance: Allowance, limits: Limits | None = None
) -> SampleTimes:
    """Caption images without committing them; return the times, taken once the model is warm.

    A server is asked within the allowance, and about each image once. Raise CaptionerError if the
    captioner cannot work, JobError if an image breaks it or a server does not answer,
    TemporaryError if the host of all images does not.
    """
    name = f"sample-{secrets.token_hex(2)}"  # a run of its own, which loads the model as it is now
    with ONE_AT_A_TIME, watching_images(range(len(plan)), limits) as watch:
        captioner = state_of(name, settings).captioner
        captioner.budget = allowance.budget()
        try:
            partitions = PartitionCaptioner(captioner, settings, name, watch=watch)
            return _sample_times(partitions, plan)
        except (CaptionerError, JobError) as error:
            fault: Exception = type(error)(str(error))
        except Exception as error:  # noqa: BLE001 (the boundary)
            (reason,) = traceback.format_exception_only(error)[-1:]
            fault = JobError(f"a sample image failed: {without_secrets(reason.strip())}")
    # Not raised in the handler, which would attach the original error: that may not pickle.
    raise fault


def _sample_times(partitions: PartitionCaptioner, plan: pa.Table) -> SampleTimes:
    if not partitions.settings.captioner.asks_server:
        partitions.caption(records_of(plan.slice(0, 1)), StageTimes())
    times = StageTimes()
    start = time.perf_counter()
    captioned = partitions.caption(records_of(plan), times)
    seconds = time.perf_counter() - start
    rows = captioned.rows
    if not rows:
        for host, outage in outages_of(error for _, error in captioned.down).items():
            raise TemporaryError(said_of(host, outage))
        raise JobError(str(captioned.unavailable))
    table = rows_to_table(rows, passthrough_of(plan)[: len(rows)], partitions.file_metadata())
    row_bytes, file_bytes = _part_bytes(table)
    spent = partitions.captioner.budget.spent
    taken = SampleTimes(len(rows), seconds, dict(times.seconds), row_bytes, file_bytes, spent)
    errors = (f"{row.image_uri}: {row.error}" for row in rows if row.status != Status.OK)
    statuses = Counter(str(row.status) for row in rows)
    return replace(taken, statuses=statuses, error=next(errors, None))


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
