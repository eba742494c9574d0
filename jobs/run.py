"""run_job: a job from lock to report."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from captioner.jobs.calibrations import with_calibration
from captioner.jobs.config.job import JobConfig
from captioner.jobs.ending import (
    exit_code,
    judge_quality,
    remove_others,
    report_anyway,
    report_end,
)
from captioner.jobs.errors import (
    ExitCode,
    Interrupted,
    JobError,
    TemporaryError,
    Terminated,
    UsageError,
    with_remedy,
)
from captioner.jobs.execution.cluster.forks import forking
from captioner.jobs.execution.record.observer import Observer, observing
from captioner.jobs.execution.record.progress import FINISHING, PLANNING
from captioner.jobs.execution.record.recorder import Recorder
from captioner.jobs.messages import about, note, on_stderr, say, warn
from captioner.jobs.pipeline.answers import forget_all_answers
from captioner.jobs.pipeline.hash_index import index_table
from captioner.jobs.pipeline.settings import (
    check_local_precision,
    choose_threshold,
    worker_settings,
)
from captioner.jobs.planning.listing import counted, list_images
from captioner.jobs.planning.partitions import Size, share_plan
from captioner.jobs.planning.plan import (
    absence_of,
    make_plan,
    may_prune,
    redo_of,
    second_opinion_of,
    vanished_file,
)
from captioner.jobs.sources.kept import keep
from captioner.jobs.sources.source import Source
from captioner.jobs.storage.backends.paths import out_path
from captioner.jobs.storage.failures import job_errors, without_secrets
from captioner.jobs.storage.filesystems import configure
from captioner.jobs.storage.temporary import TemporaryFolder, remove_dead_folders
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
    return report.followed_by(*others)


def run_passes(config: JobConfig) -> Iterator[JobReport]:
    """Yield the report of a job and, if it has a `second` captioner, then of the second pass.

    Each pass is a run. Raise the errors of `run_job`.
    """
    config = config.resolved()
    configure(config.storage_options, config.access_rules)
    remove_dead_folders()
    with (
        on_stderr(config.log_format),
        observing(config) as observer,
        TemporaryFolder() as folder,
        forking(config),
    ):
        second = config.second_job()
        with observer.watching():
            if config.scheduler:
                from captioner.jobs.execution.cluster.scheduler import check_scheduler  # with Dask

                check_scheduler(config)
            check_local_precision(config)
            source = list_images(config)
            if second:
                source, again = keep(source, Path(folder, "listing.arrow"))
                _warn_if_absent(second)
            report = _run_pass(config, source, observer)
        yield report
        if second:
            with observer.watching():
                report = _second_pass(second, again, observer)
            yield report


def _warn_if_absent(second: JobConfig) -> None:
    if problem := absence_of(second):
        warn(f"the second pass cannot run: {problem}")


def _second_pass(config: JobConfig, source: Source, observer: Observer) -> JobReport:
    try:
        return _run_pass(config, source, observer)
    except (UsageError, TemporaryError) as error:
        told = type(error)(f"no second opinion, and the first pass stays: {error}")
        told.report = error.report
        raise told from error


def _run_pass(config: JobConfig, source: Source, observer: Observer) -> JobReport:
    config = with_calibration(config)
    threshold = choose_threshold(config)
    if threshold and config.target_precision is not None and not config.quiet:
        say(str(threshold), "threshold")
    run = OutFolder(out_path(config.out)).new_run()
    with about(run_id=run.run_id), exclusive_writer(run) as writer:
        _describe(config, writer)
        recorder = Recorder(writer, config.named_source, source.skipped, threshold)
        observer.begin(recorder)
        note(f"run {run.run_id} of {_sources(config)} into {config.out}", "started")
        return _run(config, counted(source, recorder, then=PLANNING), recorder)


def _sources(config: JobConfig) -> str:
    named = config.named_source
    return named if isinstance(named, str) else ", ".join(named)


def _describe(config: JobConfig, writer: Writer) -> None:
    with usage_errors(writer.out):
        writer.storage.make_folder(writer.run.replacements)
        writer.write_text(config.to_toml(), writer.run.job_file)


def _run(config: JobConfig, source: Source, recorder: Recorder) -> JobReport:
    try:
        with job_errors(recorder.writer.out.root):
            _update_table(config, source, recorder)
            judge_quality(config, recorder)
            outage = recorder.stopped if recorder.is_outage else None
            report = report_end(recorder, exit_code(config, recorder), outage)
    except KeyboardInterrupt as stop:
        _finish(recorder)
        terminated = isinstance(stop, Terminated)
        code = ExitCode.TERMINATED if terminated else ExitCode.INTERRUPTED
        raise Interrupted(report_anyway(recorder, code, "interrupted")) from None
    except Exception as error:
        code = error.exit_code if isinstance(error, JobError) else ExitCode.FAULT
        report = report_anyway(recorder, code, without_secrets(str(error) or repr(error)))
        told = _with_report(error, report, recorder.writer)
        if told is error:
            raise
        raise told from error
    remove_others(recorder.writer, config)
    return report


def _with_report(error: Exception, report: JobReport, writer: Writer) -> Exception:
    """Return an error of a job with the report of the run that it ended; others as they are."""
    if isinstance(error, OSError):
        error = JobError(f"cannot go on in {writer.out.root}: {with_remedy(error)}")
    if isinstance(error, JobError):
        error.report = report
    return error


def _update_table(config: JobConfig, source: Source, recorder: Recorder) -> None:
    writer = recorder.writer
    redo = redo_of(config, writer.out, writer.scratch)
    recorder.threshold, recorder.remarked = settle_threshold(recorder.threshold, writer)
    size = Size(config.most_in_partition, config.limit)
    choice = second_opinion_of(config)
    recorder.plan = make_plan(source, writer.out, writer.scratch, size, redo, choice)
    prunes = config.prune and may_prune(source, recorder.plan.counts)
    recorder.planned()
    remove_surplus(recorder.plan.surplus, writer)
    asks_server, captioner = config.captioner.asks_server, redo.captioner or ""
    if asks_server and config.force:
        forget_all_answers(writer.run, captioner)
    if recorder.plan.images:
        share_plan(writer.run, writer.scratch)
        index_table(writer.run, _whose_captions(config, redo), writer.scratch, redo.embedded)
        _caption(config, recorder, redo.captioner)
    _finish(recorder)
    if asks_server and not (recorder.stopped or recorder.plan.postponed):
        forget_all_answers(writer.run, captioner)
    if prunes:
        recorder.pruned = prune(recorder.plan.files, vanished_file(writer.scratch), writer)


def _whose_captions(config: JobConfig, redo: Redo) -> str:
    """Return the captioner whose captions in the table may be reused; "" for none."""
    return "" if config.force else redo.captioner or ""


def _caption(config: JobConfig, recorder: Recorder, captioner: str | None) -> None:
    # Imported here, because a job without work needs no Dask.
    from captioner.jobs.execution.driver import caption_plan

    recorder.precision = config.actual_precision
    settings = replace(worker_settings(config, recorder.threshold), planned_identity=captioner)
    caption_plan(config, settings, recorder)


def _finish(recorder: Recorder) -> None:
    """Stop all commits, then put the rows that replace others into the table."""
    recorder.phase = FINISHING
    recorder.writer.parts.end()
    put_replacements_in_place(recorder.writer)
