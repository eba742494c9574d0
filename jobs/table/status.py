"""The status of a table, counted from its files alone."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from captioner.jobs.errors import UsageError
from captioner.jobs.storage.backends.paths import out_path
from captioner.jobs.storage.failures import job_errors
from captioner.jobs.table.layout import OutFolder
from captioner.jobs.table.read import column_batches, opened_files
from captioner.jobs.table.review import min_confidence

_MARK = "needs_review"  # a column that files of the first schema lack


@dataclass(frozen=True)
class TableStatus:
    """The counts of a table, from its files alone.

    Runs with the threshold `min_confidence` (None if no run had one) have `judged` some captions;
    `needs_review` of these are below it.
    """

    table: str
    images: int
    statuses: Mapping[str, int]
    captioners: Mapping[str, int]
    files: int
    bytes: int
    judged: int
    needs_review: int
    min_confidence: float | None


def read_status(out: str | Path) -> TableStatus:
    """Count the rows of the table in OUT; raise UsageError if there is no table."""
    folder = OutFolder(out_path(out))
    try:
        with job_errors(folder.root):
            return _read_status(folder)
    except OSError as error:
        raise UsageError(f"cannot read {folder.captions}: {error}") from error


def _read_status(folder: OutFolder) -> TableStatus:
    folder.require_table()
    counts: dict[str, Counter[Any]] = {name: Counter() for name in ("status", "captioner", _MARK)}
    thresholds: set[float | None] = set()
    files = folder.table_files()
    for path, file in opened_files(files):
        thresholds.add(min_confidence(file.schema_arrow))
        is_first_schema = _MARK not in file.schema_arrow.names
        names = [name for name in counts if not (name == _MARK and is_first_schema)]
        for batch in column_batches(path, file, names):
            for name in names:
                for count in batch.column(name).value_counts().to_pylist():
                    counts[name][count["values"]] += count["counts"]
    statuses, captioners, marks = counts.values()
    return TableStatus(
        table=str(folder.captions),
        images=statuses.total(),
        statuses=dict(statuses),
        captioners=dict(captioners),
        files=len(files),
        bytes=sum(folder.table_sizes()),
        judged=marks[True] + marks[False],
        needs_review=marks[True],
        min_confidence=next(iter(thresholds - {None}), None),  # a table has one
    )
