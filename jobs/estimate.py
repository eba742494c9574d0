"""What a run would cost, extrapolated from some of its images on the workers of the job."""

import functools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from captioner.jobs.config.job import JobConfig
from captioner.jobs.execution.tasks.task import task_counts
from captioner.jobs.execution.worker.sample import SampleTimes
from captioner.jobs.pipeline.settings import worker_settings
from captioner.jobs.planning.partitions import read_partition
from captioner.jobs.planning.plan import Plan
from captioner.schemas.caption_table import Status
from captioner.schemas.job_report import limiting_step

if TYPE_CHECKING:
    from captioner.jobs.execution.cluster.samples import Timed

MIN_SHARE = 16  # of the images to time, for each worker


@dataclass(frozen=True)
class Estimate:
    """The cost of a run, extrapolated from some of its images on the workers of the job.

    `stages` has seconds per image on one worker, for fetching and decoding summed over its threads.
    `limit` is the stage that the others wait for. `seconds` is the length of the run without the
    listing; `start_seconds` of them pass until the workers begin. `failures` count the images of
    the sample without a caption, by status.
    """

    images: int
    images_per_second: float
    workers: int
    stages: Mapping[str, float]
    limit: str | None
    start_seconds: float
    seconds: float
    table_bytes: int
    failures: Mapping[str, int] = field(default_factory=dict)


def sample_of(plan: Plan, folder: Path, images: int) -> pa.Table:
    """Read images at even distances from the whole plan."""
    ends = np.cumsum(plan.partition_sizes)
    chosen = np.unique(np.linspace(0, plan.images - 1, images).astype(int))
    partitions = np.searchsorted(ends, chosen, side="right")
    parts = []
    for number in np.unique(partitions).tolist():
        start = ends[number] - plan.partition_sizes[number]
        positions = chosen[partitions == number] - start
        parts.append(read_partition(folder, number).take(pa.array(positions)))
    return pa.concat_tables(parts)


def timed(config: JobConfig, plan: Plan, sample: pa.Table) -> "Timed":
    """Time a sample on the workers of a job; JobError if one of its images kills its worker."""
    # Imported here, because a job without work needs no Dask.
    from captioner.jobs.execution.cluster.samples import time_samples

    shares = functools.partial(_shares, sample)
    return time_samples(config, worker_settings(config), plan.images, shares)


def _shares(sample: pa.Table, workers: int) -> list[pa.Table]:
    count = min(workers, max(1, sample.num_rows // MIN_SHARE))
    return [sample.take(pa.array(range(first, sample.num_rows, count))) for first in range(count)]


def extrapolated(plan: Plan, timed: "Timed") -> Estimate:
    """Return what a plan costs by the times of a sample."""
    times, workers = timed.samples, timed.workers
    images = sum(time.images for time in times)
    stages = Counter[str]()
    for time in times:
        stages.update(time.stages)
    rate = sum(time.images / time.seconds for time in times) * workers / len(times)
    bytes_per_image = sum(time.row_bytes for time in times) / images
    bytes_per_part = sum(time.file_bytes for time in times) / len(times)
    parts = sum(task_counts(plan.partition_sizes, workers))
    return Estimate(
        images=images,
        images_per_second=round(rate, 2),
        workers=workers,
        stages={stage: round(seconds / images, 5) for stage, seconds in stages.items()},
        limit=limiting_step(stages, sum(time.seconds for time in times)),
        start_seconds=timed.start_seconds,
        seconds=round(timed.start_seconds + plan.images / rate, 1),
        failures=dict(_failures(times)),
        table_bytes=round(plan.images * bytes_per_image + parts * bytes_per_part),
    )


def without_captions(times: Sequence[SampleTimes]) -> str | None:
    """Return why times say nothing about a run: none of the images got a caption."""
    failures = _failures(times)
    if sum(failures.values()) < sum(time.images for time in times):
        return None
    counts = ", ".join(f"{n} {status}" for status, n in failures.items())
    first = next((time.error for time in times if time.error), "")
    return f"none of the sample images got a caption ({counts}); {first}"


def _failures(times: Sequence[SampleTimes]) -> Counter[str]:
    statuses = Counter[str]()
    for time in times:
        statuses.update(time.statuses)
    del statuses[Status.OK]
    return statuses
