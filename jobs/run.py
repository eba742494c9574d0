"""run_job: a job from lock to report."""

import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from jobs.config import JobConfig
from jobs.errors import ExitCode, Interrupted, JobError, UsageError
from jobs.folders import OutFolder, RunFolder
from jobs.locks import run_lock, take_fence
from jobs.plan import make_plan
from jobs.review import check_threshold, choose_threshold
from jobs.source import Source, open_source
from jobs.tally import Tally
from schemas.job_report import JobReport


class _Terminated(KeyboardInterrupt):
    """SIGTERM came."""


def run_job(config: JobConfig) -> JobReport:
    """Caption the images of the source that have no row in the table yet.

    Returns the report, whose `exit_code` tells whether too many images failed. Raises UsageError,
    TemporaryError (another run has OUT, the scheduler cannot be reached), JobError for a fault
    that no other image would escape, and Interrupted after Ctrl-C or SIGTERM. Whatever ends it,
    what is committed stays, and the same call goes on from there.

    Workers are processes that import the calling script: call it below
    `if __name__ == "__main__":`.
    """
    config = config.resolved()
    source = open_source(config.source)
    threshold = choose_threshold(config)
    if threshold and config.target_precision is not None and not config.quiet:
        print(f"captioner: {threshold}", file=sys.stderr)
    run = OutFolder(Path(config.out)).new_run()
    with _sigterm_interrupts(), run_lock(run):
        try:
            _prepare(config, run)
            return _run(config, source, Tally(run, str(config.source), source.skipped, threshold))
        finally:
            _remove_scratch(run.out)


def _prepare(config: JobConfig, run: RunFolder) -> None:
    """From here on, whatever a former run left behind can no longer add rows."""
    take_fence(run)
    _remove_scratch(run.out)
    try:
        run.create()
        run.job_file.write_text(config.to_toml(), encoding="utf-8", errors="replace")
    except OSError as error:
        raise UsageError(f"cannot write to {run.out.root}: {error}") from error


def _run(config: JobConfig, source: Source, tally: Tally) -> JobReport:
    try:
        check_threshold(tally.threshold, tally.run.out)
        tally.plan = make_plan(source, tally.run, config.partition_size)
        if tally.plan.images:
            _caption(config, tally)
    except KeyboardInterrupt as stop:
        terminated = isinstance(stop, _Terminated)
        code = ExitCode.TERMINATED if terminated else ExitCode.INTERRUPTED
        raise Interrupted(tally.write_report(code, "interrupted")) from None
    except Exception as error:
        code = error.exit_code if isinstance(error, JobError) else ExitCode.FAULT
        tally.write_report(code, str(error) or repr(error))
        raise
    return tally.write_report(_exit_code(config, tally))


def _caption(config: JobConfig, tally: Tally) -> None:
    from jobs.drive import caption_plan  # here, because a job without work needs no Dask

    caption_plan(config, tally)


def _exit_code(config: JobConfig, tally: Tally) -> ExitCode:
    limit = config.failure_limit(tally.images)
    if limit is None:  # any number but all
        limit = max(tally.images - 1, 0)
    return ExitCode.TOO_MANY_FAILURES if tally.failed > limit else ExitCode.DONE


def _remove_scratch(out: OutFolder) -> None:
    """Of this run, or of those that could not do it themselves."""
    for scratch in out.runs.glob("*/scratch"):
        shutil.rmtree(scratch, ignore_errors=True)


@contextmanager
def _sigterm_interrupts() -> Iterator[None]:
    """SIGTERM ends a run as Ctrl-C does; only the main thread can see to that."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former = signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, former)


def _terminate(_signal: int, _frame: FrameType | None) -> None:
    raise _Terminated
