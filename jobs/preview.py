"""preview_job: what a run would do, how long it would take, and how large its rows would be."""

import errno
import functools
import json
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from captioner.jobs.calibrations import with_calibration
from captioner.jobs.config.job import JobConfig
from captioner.jobs.errors import ExitCode, JobError, TemporaryError, UsageError
from captioner.jobs.execution.tasks.task import task_counts
from captioner.jobs.execution.worker.sample import SampleTimes
from captioner.jobs.limits import check_limits
from captioner.jobs.pipeline.settings import choose_threshold, worker_settings
from captioner.jobs.planning.asking import Asking, asking
from captioner.jobs.planning.compare import Counts
from captioner.jobs.planning.listing import list_images
from captioner.jobs.planning.partitions import Size, read_partition
from captioner.jobs.planning.plan import (
    Plan,
    make_plan,
    may_prune,
    redo_of,
    second_opinion_of,
)
from captioner.jobs.sources.kept import keep
from captioner.jobs.sources.source import Source
from captioner.jobs.storage.backends.paths import out_path
from captioner.jobs.storage.failures import job_errors
from captioner.jobs.storage.filesystems import configure
from captioner.jobs.storage.temporary import TemporaryFolder, remove_dead_folders
from captioner.jobs.table.layout import OutFolder
from captioner.schemas.caption_table import Status
from captioner.schemas.job_report import limiting_step

SAMPLE = 64  # images to time
SERVER_SAMPLE = 4  # of a server, which may want money for each
MIN_SHARE = 16  # of these images, for each worker


@dataclass(frozen=True)
class Estimate:
    """The cost of a run, extrapolated from some of its images on the workers of the job.

    `stages` has seconds per image on one worker, for fetching and decoding summed over its threads.
    `limit` is the stage that the others wait for. `seconds` is the length of the run, without its
    start. `failures` count the images of the sample without a caption, by status.
    """

    images: int
    images_per_second: float
    workers: int
    stages: Mapping[str, float]
    limit: str | None
    seconds: float
    table_bytes: int
    failures: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Preview:
    """The work of a run that has not begun; the fields of `counts` are as in JobReport.

    `images` are to be captioned; `postponed` ones are beyond the job's limit. `prune` says whether
    rows of vanished images would be removed. `estimate` is None if there is no work, or if a
    `problem` prevented it. `asking` is None unless the captioner asks a server. `second` is the
    second pass of the same job, about the rows that are in the table already; `second_problem` says
    why there can be none.
    """

    source: str | Sequence[str]
    table: str
    counts: Counts
    skipped: Mapping[str, int]
    images: int
    postponed: int
    partitions: int
    prune: bool
    asking: Asking | None = None
    estimate: Estimate | None = None
    problem: str | None = None
    second: "Preview | None" = None
    second_problem: str | None = None

    def to_json(self) -> str:
        """Format the preview as a JSON object."""
        return json.dumps(asdict(self), indent=2)


def preview_job(config: JobConfig, sample: int | None = None) -> Preview:
    """Return what a run would do now, with an estimate from a `sample` of its images (0: none).

    By default, the sample is SAMPLE, or SERVER_SAMPLE if a server is asked. Write nothing to OUT
    and take no lock. Raise the errors of `run_job`.
    """
    check_limits()
    config = config.resolved()
    configure(config.storage_options, config.access_rules)
    remove_dead_folders()
    source, second = list_images(config), config.second_job()
    if second is None:
        return _preview(config, source, sample)
    with TemporaryFolder() as folder:
        first, again = keep(source, Path(folder, "listing.arrow"))
        preview = _preview(config, first, sample)
        try:
            return replace(preview, second=_preview(second, again, sample))
        except (UsageError, TemporaryError) as error:
            return replace(preview, second_problem=str(error))


def _preview(config: JobConfig, source: Source, sample: int | None) -> Preview:
    if sample is None:
        sample = SERVER_SAMPLE if config.captioner.asks_server else SAMPLE
    config = with_calibration(config)
    choose_threshold(config)  # UsageError now rather than in the run
    out = OutFolder(out_path(config.out))
    with _folder(out) as folder:
        size = Size(config.partition_size, config.limit)
        plan = make_plan(
            source, out, folder, size, redo_of(config, out, folder), second_opinion_of(config)
        )
        images = _sample(plan, folder, sample) if sample and plan.images else None
    prunes = config.prune and may_prune(config, source, plan.counts)
    return Preview(
        source=config.named_source,
        table=str(out.captions),
        counts=plan.counts,
        skipped=dict(source.skipped),
        images=plan.images,
        postponed=plan.postponed,
        partitions=len(plan.partition_sizes),
        prune=prunes,
        **_estimate_or_problem(config, plan, images),
    )


@contextmanager
def _folder(out: OutFolder) -> Iterator[Path]:
    """Provide a temporary folder for the plan, outside OUT."""
    try:
        with job_errors(out.root), TemporaryFolder() as name:
            yield Path(name)
    except OSError as error:
        remedy = f"; set TMPDIR to a folder with more room than {tempfile.gettempdir()}"
        is_full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        raise JobError(f"cannot plan: {error}{remedy if is_full else ''}") from error


def _estimate_or_problem(config: JobConfig, plan: Plan, images: pa.Table | None) -> dict[str, Any]:
    if images is None:
        return _asking(config, plan, [])
    try:
        times, workers = _times(config, plan, images)
    except JobError as error:
        if error.exit_code != ExitCode.FAULT:
            raise
        return {"problem": str(error), **_asking(config, plan, [])}
    if problem := _without_captions(times):
        return {"problem": problem, **_asking(config, plan, times)}
    return {"estimate": _extrapolated(plan, times, workers), **_asking(config, plan, times)}


def _without_captions(times: Sequence[SampleTimes]) -> str | None:
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


def _asking(config: JobConfig, plan: Plan, times: Sequence[SampleTimes]) -> dict[str, Any]:
    if not config.captioner.asks_server:
        return {}
    sampled, spent = sum(time.images for time in times), [time.spent for time in times]
    return {"asking": asking(config, plan.images, sampled, spent)}


def _sample(plan: Plan, folder: Path, images: int) -> pa.Table:
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


def _times(config: JobConfig, plan: Plan, sample: pa.Table) -> tuple[Sequence[SampleTimes], int]:
    """Return the times of a sample on workers of the job, and how many the job has."""
    # Imported here, because a job without work needs no Dask.
    from captioner.jobs.execution.cluster.samples import time_samples

    shares = functools.partial(_shares, sample)
    return time_samples(config, worker_settings(config), plan.images, shares)


def _shares(sample: pa.Table, workers: int) -> list[pa.Table]:
    count = min(workers, max(1, sample.num_rows // MIN_SHARE))
    return [sample.take(pa.array(range(first, sample.num_rows, count))) for first in range(count)]


def _extrapolated(plan: Plan, times: Sequence[SampleTimes], workers: int) -> Estimate:
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
        seconds=round(plan.images / rate, 1),
        failures=dict(_failures(times)),
        table_bytes=round(plan.images * bytes_per_image + parts * bytes_per_part),
    )
