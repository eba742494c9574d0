"""What every command that writes to OUT does first and last."""

import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from jobs.errors import Terminated, UsageError
from jobs.folders import OutFolder, RunFolder
from jobs.locks import run_lock, take_fence
from jobs.replace import put_replacements_in_place
from jobs.swap import finish_swap


@contextmanager
def only_writer(run: RunFolder) -> Iterator[None]:
    """OUT is this run's alone, and the table is as if no run had been killed.

    Whatever a former run left behind can no longer add rows. SIGTERM raises Terminated, as Ctrl-C
    raises KeyboardInterrupt. TemporaryError if another run has OUT, UsageError if it cannot be
    written to.
    """
    with _sigterm_interrupts(), run_lock(run):
        try:
            _take_over(run)
            yield
        finally:
            _remove_scratch(run.out)


def _take_over(run: RunFolder) -> None:
    take_fence(run)
    _remove_scratch(run.out)
    try:
        run.create()
        finish_swap(run.out, run.scratch)
        put_replacements_in_place(run.out, run.scratch)
    except OSError as error:
        raise UsageError(f"cannot write to {run.out.root}: {error}") from error


def _remove_scratch(out: OutFolder) -> None:
    """Of this run, or of those that could not do it themselves."""
    for scratch in out.runs.glob("*/scratch"):
        shutil.rmtree(scratch, ignore_errors=True)
        with suppress(OSError):
            scratch.parent.rmdir()  # if there is nothing else, as in a compaction's


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
    raise Terminated
