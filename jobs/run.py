"""run_job: a job from lock to report."""

import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from captioner.jobs.calibrations import with_calibration
from captioner.jobs.config.job import JobConfig
from captioner.jobs.errors import (
    ExitCode,
    Interrupted,
    JobError,
    TemporaryError,
    Terminated,
    UsageError,
)
from captioner.jobs.execution.record.recorder import Recorder
from captioner.jobs.pipeline.answers import forget_all_answers
from captioner.jobs.pipeline.hash_index import index_table
from captioner.jobs.pipeline.settings import choose_threshold, worker_settings
from captioner.jobs.planning.listing import list_images
from captioner.jobs.planning.partitions import Size, share_plan
from captioner.jobs.planning.plan import (
    absence_of,
    check_listing_is_whole,
    make_plan,
    redo_of,
    second_opinion_of,
    vanished_file,
)
from captioner.jobs.publish.report.write import write_run_report
from captioner.jobs.sources.kept import keep
from captioner.jobs.sources.source import Source
from captioner.jobs.storage.backends.paths import out_path
from captioner.jobs.storage.failures import job_errors, without_secrets
from captioner.jobs.storage.filesystems import configure
from captioner.jobs.table.exclusive_writer import exclusive_writer, usage_errors
from captioner.jobs.table.keys import Redo
from captioner.jobs.table.layout import OutFolder
from captioner.jobs.table.replace import prune, put_replacements_in_place, remove_surplus
from captioner.jobs.table.threshold import settle_threshold
from captioner.jobs.table.writer import Writer
from captioner.schemas.job_report import JobReport


def run_job(config: JobConfig) -> JobReport:
    """Caption the images of the source that have no row in the table yet, or have changed since.

    Return the report, whose `exit_code` says whether too many images failed; if the job has a
    `second` captioner, its report is part of it. Raise UsageError, TemporaryError (another run uses
    OUT, the scheduler does not answer), JobError for a fault that would hit every image, and
    Interrupted after Ctrl-C or SIGTERM. What was committed stays.

    Workers import the calling script: call this below `if __name__ == "__main__":`.
    """
    report, *others = run_passes(config)
    for second in others:
        code = report.exit_code or second.exit_code
        report = replace(report, second=second, exit_code=code)
    return report


def run_passes(config: JobConfig) -> Iterator[JobReport]:
    """Yield the report of a job and, if it has a `second` captioner, then of the second pass.

    Each pass is a run. Raise the errors of `run_job`.
    """
    config = config.resolved()
    configure(config.storage_options, config.access_rules)
    source, second = list_images(config), config.second_job()
    if second is None:
        yield _run_pass(config, source)
        return
    if problem := absence_of(second):
        print(f"captioner: the second pass cannot run: {problem}", file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="captioner-") as folder:
        first, again = keep(source, Path(folder, "listing.arrow"))
        yield _run_pass(config, first)
        yield _second_pass(second, again)


def _second_pass(config: JobConfig, source: Source) -> JobReport:
    try:
        return _run_pass(config, source)
    except (UsageError, TemporaryError) as error:
        raise type(error)(f"no second opinion, and the first pass stays: {error}") from error


def _run_pass(config: JobConfig, source: Source) -> JobReport:
    config = with_calibration(config)
    threshold = choose_threshold(config)
    if threshold and config.target_precision is not None and not config.quiet:
        print(f"captioner: {threshold}", file=sys.stderr)
    run = OutFolder(out_path(config.out)).new_run()
    with exclusive_writer(run) as writer:
        _describe(config, writer)
        recorder = Recorder(writer, config.named_source, source.skipped, threshold)
        return _run(config, source, recorder)


def _describe(config: JobConfig, writer: Writer) -> None:
    with usage_errors(writer.out):
        writer.storage.make_folder(writer.run.replacements)
        writer.write_text(config.to_toml(), writer.run.job_file)


def _run(config: JobConfig, source: Source, recorder: Recorder) -> JobReport:
    try:
        with job_errors(recorder.writer.out.root):
            _update_table(config, source, recorder)
    except KeyboardInterrupt as stop:
        _finish(recorder.writer)
        terminated = isinstance(stop, Terminated)
        code = ExitCode.TERMINATED if terminated else ExitCode.INTERRUPTED
        raise Interrupted(_report(recorder, code, "interrupted")) from None
    except Exception as error:
        code = error.exit_code if isinstance(error, JobError) else ExitCode.FAULT
        _report(recorder, code, without_secrets(str(error) or repr(error)))
        raise
    outage = recorder.stopped if recorder.is_outage else None
    return _report(recorder, _exit_code(config, recorder), outage)


def _report(recorder: Recorder, code: ExitCode, error: str | None = None) -> JobReport:
    """Write both reports. Without the one for people the run is complete, whatever prevents it."""
    report = recorder.write_report(code, error)
    try:
        write_run_report(recorder.writer, report)
    except (Exception, KeyboardInterrupt) as fault:  # noqa: BLE001 (the boundary)
        reason = without_secrets(str(fault) or repr(fault))
        print(f"captioner: no report.html for this run: {reason}", file=sys.stderr)
    return report


def _update_table(config: JobConfig, source: Source, recorder: Recorder) -> None:
    writer = recorder.writer
    redo = redo_of(config, writer.out, writer.scratch)
    recorder.threshold, recorder.remarked = settle_threshold(recorder.threshold, writer)
    size = Size(config.partition_size, config.limit)
    choice = second_opinion_of(config)
    recorder.plan = make_plan(source, writer.out, writer.scratch, size, redo, choice)
    if config.prune:
        check_listing_is_whole(source, recorder.plan.counts.listed)
    remove_surplus(recorder.plan.surplus, writer)
    asks_server, captioner = config.captioner.asks_server, redo.captioner or ""
    if asks_server and config.force:
        forget_all_answers(writer.run, captioner)
    if recorder.plan.images:
        share_plan(writer.run, writer.scratch)
        index_table(writer.run, _whose_captions(config, redo), writer.scratch, redo.embedded)
        _caption(config, recorder)
    _finish(writer)
    if asks_server and not (recorder.stopped or recorder.plan.postponed):
        forget_all_answers(writer.run, captioner)
    if config.prune:
        recorder.pruned = prune(recorder.plan.files, vanished_file(writer.scratch), writer)


def _whose_captions(config: JobConfig, redo: Redo) -> str:
    """Return the captioner whose captions in the table may be reused; "" for none."""
    return "" if config.force else redo.captioner or ""


def _caption(config: JobConfig, recorder: Recorder) -> None:
    # Imported here, because a job without work needs no Dask.
    from captioner.jobs.execution.driver import caption_plan

    caption_plan(config, worker_settings(config, recorder.threshold), recorder)


def _finish(writer: Writer) -> None:
    """Stop all commits, then put the rows that replace others into the table."""
    writer.parts.end()
    put_replacements_in_place(writer)


def _exit_code(config: JobConfig, recorder: Recorder) -> ExitCode:
    if recorder.is_outage:
        return ExitCode.TEMPORARY
    limit = config.failure_limit(recorder.images)
    if limit is None:  # any number, as long as one image succeeds
        limit = max(recorder.images - 1, 0)
    return ExitCode.TOO_MANY_FAILURES if recorder.failed > limit else ExitCode.DONE
