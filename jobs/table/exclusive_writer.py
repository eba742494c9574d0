"""What every command that writes to OUT does first and last."""

import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from captioner.jobs.errors import JobError, Terminated, UsageError
from captioner.jobs.storage.failures import job_errors
from captioner.jobs.storage.paths import OutPath, folders_of_runs, is_store, remove_tree
from captioner.jobs.table.fence import take_fence
from captioner.jobs.table.layout import OutFolder, RunFolder
from captioner.jobs.table.merge_journal import finish_swap
from captioner.jobs.table.replace import put_replacements_in_place
from captioner.jobs.table.run_lock import run_lock


@contextmanager
def only_writer(run: RunFolder) -> Iterator[Path]:
    """OUT is this run's alone, and the table is as if no run had been killed.

    Gives the folder of this machine to work in. Whatever a former run left behind can no longer add
    rows. SIGTERM raises Terminated, as Ctrl-C raises KeyboardInterrupt. TemporaryError if another
    run has OUT or its store fails, UsageError if it cannot be written to.
    """
    with _sigterm_interrupts(), job_errors(run.out.root), run_lock(run), _folder(run) as folder:
        try:
            _take_over(run, folder)
            yield folder
        except OSError as error:
            if is_store(run.out.root):
                raise
            raise JobError(f"cannot go on in {run.out.root}: {error}") from error
        finally:
            _remove_scratch(run.scratch)  # and no other, which may be that of a run that took over


@contextmanager
def _folder(run: RunFolder) -> Iterator[Path]:
    """The scratch of the run, or a temporary folder if that is on a store."""
    if is_store(run.scratch):
        with tempfile.TemporaryDirectory(prefix="captioner-") as folder:
            yield Path(folder)
    else:
        yield run.scratch


def _take_over(run: RunFolder, folder: Path) -> None:
    take_fence(run)
    for scratch in folders_of_runs(run.out.runs, "scratch"):
        _remove_scratch(scratch)
    with usage_errors(run.out):
        run.create()
        finish_swap(run.out, folder)
        put_replacements_in_place(run.out, folder)


@contextmanager
def usage_errors(out: OutFolder) -> Iterator[None]:
    """A folder that cannot be written to is the user's to change; stores may fail, too."""
    try:
        yield
    except OSError as error:
        if is_store(out.root):
            raise
        raise UsageError(f"cannot write to {out.root}: {error}") from error


def _remove_scratch(scratch: OutPath) -> None:
    """And the folder of the run, if that has nothing else, as a compaction's."""
    remove_tree(scratch, ignore_errors=True)
    if not is_store(scratch):
        with suppress(OSError):
            scratch.parent.rmdir()


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
