"""Remove what is kept about old runs; their rows stay."""

import re
from collections.abc import Callable

from captioner.jobs.table.layout import RunFolder
from captioner.jobs.table.runs.reports import run_folders
from captioner.jobs.table.writer import Writer

_RUN_ID = re.compile(r"\d{8}T\d{6}-\d{6}-[0-9a-f]{4}")


def remove_old_runs(writer: Writer, keep: int, is_needed: Callable[[RunFolder], bool]) -> int:
    """Remove the folders of all runs but the latest `keep` and `is_needed` ones; return how many.

    The writer's own run is one of the latest. The folder of a run whose rows are not in the table
    yet stays, and so does whatever is not named like a run.
    """
    names = [path.name for path in run_folders(writer.out) if _RUN_ID.fullmatch(path.name)]
    others = [name for name in names if name != writer.run.run_id]
    old = others[: len(others) - (keep - 1)]
    runs = [run for name in old if _has_ended(run := RunFolder(writer.out, name))]
    unneeded = [run for run in runs if not is_needed(run)]
    for run in unneeded:
        writer.remove_tree(run.root)
    return len(unneeded)


def _has_ended(run: RunFolder) -> bool:
    """Return whether no rows of a run wait to be put into the table."""
    return not any(map(run.storage.is_folder, (run.replacements, run.scratch)))
