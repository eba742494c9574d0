"""run_job: a job from lock to report."""

import json
import sys
from pathlib import Path

from captioner.errors import CaptionerError
from captioner.model_directory import find_checkpoint, fingerprint, identity
from jobs.compare import Redo
from jobs.config import JobConfig
from jobs.errors import ExitCode, Interrupted, JobError, Terminated, UsageError
from jobs.folders import OutFolder, RunFolder
from jobs.hash_index import index_table
from jobs.locks import end_commits
from jobs.plan import make_plan, share_plan
from jobs.progress import with_progress
from jobs.replace import prune, put_replacements_in_place, remove_surplus
from jobs.review import Threshold, check_threshold, choose_threshold
from jobs.selection import UNREADABLE_FOLDERS
from jobs.source import Source, open_source
from jobs.storage import configure, without_secrets
from jobs.store import is_store, job_errors, make_folder, out_path
from jobs.tally import Tally
from jobs.task import WorkerSettings
from jobs.writing import only_writer, usage_errors
from schemas.job_report import JobReport


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
        tally = Tally(run, str(config.source), source.skipped, events, threshold)
        return _run(config, source, tally, folder)


def _describe(config: JobConfig, run: RunFolder) -> None:
    with usage_errors(run.out):
        run.job_file.write_text(config.to_toml(), encoding="utf-8", errors="replace")
        make_folder(run.replacements)


def _run(config: JobConfig, source: Source, tally: Tally, folder: Path) -> JobReport:
    try:
        with job_errors(tally.run.out.root):
            _update_table(config, source, tally, folder)
    except KeyboardInterrupt as stop:
        _finish(tally.run, folder)
        terminated = isinstance(stop, Terminated)
        code = ExitCode.TERMINATED if terminated else ExitCode.INTERRUPTED
        raise Interrupted(tally.write_report(code, "interrupted")) from None
    except Exception as error:
        code = error.exit_code if isinstance(error, JobError) else ExitCode.FAULT
        tally.write_report(code, without_secrets(str(error) or repr(error)))
        raise
    return tally.write_report(_exit_code(config, tally))


def _update_table(config: JobConfig, source: Source, tally: Tally, folder: Path) -> None:
    run = tally.run
    check_threshold(tally.threshold, run.out)
    size, redo = config.partition_size, redo_of(config)
    tally.plan = make_plan(source, run.out, folder, size, redo)
    if config.prune:
        check_listing_is_whole(source, tally.plan.counts.listed)
    remove_surplus(tally.plan, folder)
    if tally.plan.images:
        share_plan(run, folder)
        index_table(run, redo.captioner or "", folder)
        _caption(config, tally)
    _finish(run, folder)
    if config.prune:
        tally.pruned = prune(tally.plan, folder)


def worker_settings(config: JobConfig, threshold: Threshold | None = None) -> WorkerSettings:
    """What the workers of a job need to know."""
    return WorkerSettings(
        checkpoint=str(config.checkpoint),
        device=config.device,
        beam_size=config.beam_size,
        max_characters=config.max_characters,
        batch_size=config.batch_size,
        max_bytes=config.max_bytes,
        threshold=threshold,
        storage_options=json.dumps(config.storage_options),
    )


def check_listing_is_whole(source: Source, listed: int) -> None:
    """UsageError if nothing is to be pruned by a listing: of no image, or not of all folders."""
    if not listed:
        raise UsageError("cannot prune: the source lists no image at all; run without prune")
    if unread := source.skipped[UNREADABLE_FOLDERS]:
        raise UsageError(
            f"cannot prune: {unread} folders could not be read, so their images only seem to be "
            "gone; make them readable, or run without prune"
        )


def redo_of(config: JobConfig) -> Redo:
    """Which rows of unchanged images a job writes again. UsageError without its checkpoint."""
    try:
        directory = find_checkpoint(config.checkpoint)
    except CaptionerError as error:
        raise UsageError(str(error)) from error
    search = worker_settings(config).search
    captioner = identity(directory.resolve().name, fingerprint(directory), search)
    return Redo(captioner, config.stale == "redo", config.retried)


def _caption(config: JobConfig, tally: Tally) -> None:
    from jobs.drive import caption_plan  # here, because a job without work needs no Dask

    caption_plan(config, worker_settings(config, tally.threshold), tally)


def _finish(run: RunFolder, folder: Path) -> None:
    """Rows that replace others go into the table, when no worker can add to them any more."""
    end_commits(run)
    put_replacements_in_place(run.out, folder)


def _exit_code(config: JobConfig, tally: Tally) -> ExitCode:
    limit = config.failure_limit(tally.images)
    if limit is None:  # any number but all
        limit = max(tally.images - 1, 0)
    return ExitCode.TOO_MANY_FAILURES if tally.failed > limit else ExitCode.DONE
