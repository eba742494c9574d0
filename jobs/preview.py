"""preview_job: what a run would do, how long it would take, and how large its rows would be."""

import errno
import json
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from captioner.jobs.calibrations import with_calibration
from captioner.jobs.config.job import JobConfig
from captioner.jobs.errors import ExitCode, JobError, TemporaryError, UsageError
from captioner.jobs.estimate import Estimate, extrapolated, sample_of, timed, without_captions
from captioner.jobs.execution.cluster.forks import forking
from captioner.jobs.execution.record.progress import LISTING, PLANNING, TIMING, Moment, showing
from captioner.jobs.execution.worker.sample import SampleTimes
from captioner.jobs.pipeline.settings import check_local_precision, choose_threshold
from captioner.jobs.planning.asking import Asking, asking
from captioner.jobs.planning.compare import Counts
from captioner.jobs.planning.listing import counted, list_images
from captioner.jobs.planning.partitions import Size
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

SAMPLE = 64  # images to time
SERVER_SAMPLE = 4  # of a server, which may want money for each


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
    config = config.resolved()
    configure(config.storage_options, config.access_rules)
    remove_dead_folders()
    progress = _Progress()
    with (
        showing(progress.moment, quiet=config.quiet),
        nullcontext() if sample == 0 else forking(config),
    ):
        if sample != 0 and config.scheduler:
            from captioner.jobs.execution.cluster.scheduler import check_scheduler  # with Dask

            check_scheduler(config)
        check_local_precision(config)
        source, second = list_images(config), config.second_job()
        source = counted(source, progress, then=PLANNING)
        if second is None:
            return _preview(config, source, sample, progress)
        with TemporaryFolder() as folder:
            first, again = keep(source, Path(folder, "listing.arrow"))
            preview = _preview(config, first, sample, progress)
            try:
                return replace(preview, second=_preview(second, again, sample, progress))
            except (UsageError, TemporaryError) as error:
                return replace(preview, second_problem=str(error))


@dataclass
class _Progress:
    """How far a preview is."""

    listed: int = 0
    phase: str = LISTING

    def moment(self) -> Moment:
        return Moment(time.monotonic(), listed=self.listed, phase=self.phase)


def _preview(config: JobConfig, source: Source, sample: int | None, progress: _Progress) -> Preview:
    if sample is None:
        sample = SERVER_SAMPLE if config.captioner.asks_server else SAMPLE
    config = with_calibration(config)
    choose_threshold(config)  # UsageError now rather than in the run
    out = OutFolder(out_path(config.out))
    with _folder(out) as folder:
        size = Size(config.most_in_partition, config.limit)
        plan = make_plan(
            source, out, folder, size, redo_of(config, out, folder), second_opinion_of(config)
        )
        images = sample_of(plan, folder, sample) if sample and plan.images else None
    prunes = config.prune and may_prune(source, plan.counts)
    progress.phase = TIMING
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
        times = timed(config, plan, images)
    except JobError as error:
        if error.exit_code != ExitCode.FAULT:
            raise
        return {"problem": str(error), **_asking(config, plan, [])}
    asked = _asking(config, plan, times.samples)
    if problem := without_captions(times.samples):
        return {"problem": problem, **asked}
    return {"estimate": extrapolated(plan, times), **asked}


def _asking(config: JobConfig, plan: Plan, times: Sequence[SampleTimes]) -> dict[str, Any]:
    if not config.captioner.asks_server:
        return {}
    sampled, spent = sum(time.images for time in times), [time.spent for time in times]
    return {"asking": asking(config, plan.images, sampled, spent)}
