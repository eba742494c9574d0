"""The reports of the runs of a table."""

from collections.abc import Sequence
from contextlib import suppress

from captioner.jobs.storage.backends.paths import OutPath
from captioner.jobs.table.layout import OutFolder, RunFolder
from captioner.schemas.job_report import JobReport


def run_folders(out: OutFolder) -> Sequence[OutPath]:
    """List the folders of all runs, the oldest first."""
    return out.storage.files(out.runs, "[0-9]*")


def read_report(run: RunFolder) -> JobReport | None:
    """Read the report of a run; None for a killed run, a compaction, and a foreign file."""
    with suppress(FileNotFoundError, ValueError, TypeError, KeyError):
        return JobReport.from_json(run.storage.read_bytes(run.report).decode())
    return None
