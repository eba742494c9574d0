"""run_job: a job from lock to report."""

import sys
from pathlib import Path

from captioner.jobs.config import JobConfig
from captioner.jobs.errors import ExitCode, Interrupted, JobError, Terminated
from captioner.jobs.execution.recorder import Recorder
from captioner.jobs.pipeline.hash_index import index_table
from captioner.jobs.pipeline.settings import choose_threshold, worker_settings
from captioner.jobs.planning.plan import (
    check_listing_is_whole,
    make_plan,
    redo_of,
    share_plan,
    vanished_file,
)
from captioner.jobs.sources.open_source import open_source, with_progress
from captioner.jobs.sources.source import Source
from captioner.jobs.storage.failures import job_errors, without_secrets
from captioner.jobs.storage.filesystems import configure
from captioner.jobs.storage.paths import is_store, make_folder, out_path
from captioner.jobs.table.exclusive_writer import only_writer, usage_errors
from captioner.jobs.table.fence import end_commits
from captioner.jobs.table.layout import OutFolder, RunFolder
from captioner.jobs.table.replace import prune, put_replacements_in_place, remove_surplus
from captioner.jobs.table.review import check_threshold
from captioner.schemas.job_report import JobReport


def run_job(config: JobConfig) -> JobReport:
    """Caption the images of the source that have no row in the table yet, or have changed since.

    Returns the report, whose `exit_code` tells whether too many images failed. Raises UsageError,
    TemporaryError (another run has OUT, the scheduler cannot be reached), JobError for a fault
    that no other image would escape, and Interrupted after Ctrl-C or SIGTERM. Whatever ends it,
    what is committed stays, and the same call goes on from there.

    Workers are processes that import the calling script: call it below
    `if __name__ == "__main__":`.
    """
    config = config.resolved()
    configure(config.storage_options)
    source = with_progress(open_source(config.source, config.any_extension), config.quiet)
    threshold = choose_threshold(config)
    if threshold and config.target_precision is not None and not config.quiet:
        print(f"captioner: {threshold}", file=sys.stderr)
    run = OutFolder(out_path(config.out)).new_run()
    with only_writer(run) as folder:
        _describe(config, run)
        events = folder / run.events.name if is_store(run.events) else run.events
        recorder = Recorder(run, str(config.source), source.skipped, events, threshold)
        return _run(config, source, recorder, folder)


def _describe(config: JobConfig, run: RunFolder) -> None:
    with usage_errors(run.out):
        run.job_file.write_text(config.to_toml(), encoding="utf-8", errors="replace")
        make_folder(run.replacements)


def _run(config: JobConfig, source: Source, recorder: Recorder, folder: Path) -> JobReport:
    try:
        with job_errors(recorder.run.out.root):
            _update_table(config, source, recorder, folder)
    except KeyboardInterrupt as stop:
        _finish(recorder.run, folder)
        terminated = isinstance(stop, Terminated)
        code = ExitCode.TERMINATED if terminated else ExitCode.INTERRUPTED
        raise Interrupted(recorder.write_report(code, "interrupted")) from None
    except Exception as error:
        code = error.exit_code if isinstance(error, JobError) else ExitCode.FAULT
        recorder.write_report(code, without_secrets(str(error) or repr(error)))
        raise
    return recorder.write_report(_exit_code(config, recorder))


def _update_table(config: JobConfig, source: Source, recorder: Recorder, folder: Path) -> None:
    run = recorder.run
    check_threshold(recorder.threshold, run.out)
    size, redo = config.partition_size, redo_of(config)
    recorder.plan = make_plan(source, run.out, folder, size, redo)
    if config.prune:
        check_listing_is_whole(source, recorder.plan.counts.listed)
    remove_surplus(recorder.plan.surplus, folder)
    if recorder.plan.images:
        share_plan(run, folder)
        index_table(run, redo.captioner or "", folder)
        _caption(config, recorder)
    _finish(run, folder)
    if config.prune:
        recorder.pruned = prune(recorder.plan.files, vanished_file(folder), folder)


def _caption(config: JobConfig, recorder: Recorder) -> None:
    from captioner.jobs.execution.driver import (
        caption_plan,  # here, because a job without work needs no Dask
    )

    caption_plan(config, worker_settings(config, recorder.threshold), recorder)


def _finish(run: RunFolder, folder: Path) -> None:
    """Rows that replace others go into the table, when no worker can add to them any more."""
    end_commits(run)
    put_replacements_in_place(run.out, folder)


def _exit_code(config: JobConfig, recorder: Recorder) -> ExitCode:
    limit = config.failure_limit(recorder.images)
    if limit is None:  # any number but all
        limit = max(recorder.images - 1, 0)
    return ExitCode.TOO_MANY_FAILURES if recorder.failed > limit else ExitCode.DONE
