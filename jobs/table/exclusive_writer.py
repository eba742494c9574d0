"""The beginning and the end of every command that changes a table."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager

from captioner.jobs.errors import JobError, UsageError, with_remedy
from captioner.jobs.sigterm import sigterm_interrupts
from captioner.jobs.storage.backends.paths import OutPath
from captioner.jobs.storage.failures import StoreError, job_errors
from captioner.jobs.table.compaction.merge_journal import finish_merge
from captioner.jobs.table.layout import OutFolder, RunFolder
from captioner.jobs.table.replace import put_replacements_in_place
from captioner.jobs.table.writer import Writer


@contextmanager
def exclusive_writer(run: RunFolder, passed_over: Collection[OutPath] = ()) -> Iterator[Writer]:
    """Lock OUT for a run, finish or undo what killed runs left behind, and shut out their workers.

    SIGTERM raises Terminated, as Ctrl-C KeyboardInterrupt. Raise TemporaryError if another run is
    at work in OUT or its store fails, UsageError if OUT cannot be written to, JobError if this
    machine fails. Rows for files that are `passed_over` stay where killed runs left them.
    """
    out, storage = run.out, run.storage
    with (
        sigterm_interrupts(),
        job_errors(out.root),
        storage.lock(out.lock, out.root, run.run_id) as lock,
    ):
        try:
            with storage.work_folder(run.scratch) as scratch:
                writer = Writer(run, scratch, lock)
                _take_over(writer, passed_over)
                yield writer
        except StoreError:
            raise
        except OSError as error:
            raise JobError(f"cannot go on in {out.root}: {with_remedy(error)}") from error
        finally:
            _remove_scratch(run, run.scratch)  # only its own: another run may have begun


def _take_over(writer: Writer, passed_over: Collection[OutPath]) -> None:
    writer.parts.begin()
    for scratch in writer.storage.folders_below(writer.out.runs, "scratch"):
        _remove_scratch(writer.run, scratch)
    with usage_errors(writer.out):
        writer.run.create()
        finish_merge(writer)
        put_replacements_in_place(writer, passed_over)


@contextmanager
def usage_errors(out: OutFolder) -> Iterator[None]:
    """Report a local folder that cannot be written to as UsageError; store errors pass through."""
    try:
        yield
    except OSError as error:
        if not out.storage.local_path(out.root):
            raise
        raise UsageError(f"cannot write to {out.root}: {with_remedy(error)}") from error


def _remove_scratch(run: RunFolder, scratch: OutPath) -> None:
    """Remove the scratch of a run, and its folder if nothing else is in it, as after compacting."""
    run.storage.remove_tree(scratch, ignore_errors=True)
    run.storage.remove_empty_folder(scratch.parent)
