"""The status of a table, counted from its files alone."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from captioner.jobs.errors import UsageError
from captioner.jobs.storage.backends.paths import out_path
from captioner.jobs.storage.failures import job_errors
from captioner.jobs.table.layout import OutFolder
from captioner.jobs.table.read import column_batches, opened_files
from captioner.jobs.table.reviews import Decisions, decisions
from captioner.jobs.table.threshold import (
    Threshold,
    latest,
    marked,
    new_threshold,
    threshold_of,
)

_MARK = "needs_review"  # a column that files of the first schema lack


@dataclass(frozen=True)
class TableStatus:
    """The counts of a table, from its files alone.

    `judged` captions are marked by the threshold `min_confidence` (None without one);
    `needs_review` counts those below it that nobody has decided about, and images whose bytes have
    changed since. `decisions` counts what people decided about the images of the table.
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
    decisions: Mapping[str, int]


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
    files = folder.table_files()
    announced = new_threshold(folder)
    counts, thresholds = _Counts(decisions(folder), announced), list[Threshold | None]()
    for path, file in opened_files(files):
        thresholds.append(threshold_of(file.schema_arrow))
        is_first_schema = _MARK not in file.schema_arrow.names
        names = [name for name in counts.columns if not (name == _MARK and is_first_schema)]
        for batch in column_batches(path, file, names):
            counts.add(batch)
    threshold = announced or latest(thresholds)
    return TableStatus(
        table=str(folder.captions),
        images=counts.of["status"].total(),
        statuses=dict(counts.of["status"]),
        captioners=dict(counts.of["captioner"]),
        files=len(files),
        bytes=sum(folder.table_sizes()),
        judged=counts.judged,
        needs_review=counts.of[_MARK][True],
        min_confidence=threshold.min_confidence if threshold else None,
        decisions=dict(counts.of["decision"]),
    )


class _Counts:
    """The counts of values in some columns, and in what people decided.

    Rows are marked by a `threshold` first, if one is given.
    """

    def __init__(self, in_force: Decisions, threshold: Threshold | None) -> None:
        self.in_force, self.threshold = in_force, threshold
        self.of = {name: Counter[Any]() for name in ("status", "captioner", _MARK, "decision")}
        self.judged = 0
        keys = ("image_uri", "image_sha256") if len(in_force) else ()
        judged = ("caption", "confidence") if threshold else ()
        self.columns = ("status", "captioner", _MARK, *keys, *judged)

    def add(self, batch: pa.RecordBatch) -> None:
        rows = pa.Table.from_batches([batch])
        if _MARK not in rows.column_names:
            rows = rows.append_column(_MARK, pa.nulls(len(rows), pa.bool_()))
        if self.threshold:
            rows = marked(rows, self.threshold)
        self.judged += len(rows) - rows[_MARK].null_count
        columns = {name: rows[name] for name in ("status", "captioner", _MARK)}
        if len(self.in_force):
            about = self.in_force.about(rows)
            columns |= {"decision": about.decision.drop_null(), _MARK: about.needs_review}
        for name, column in columns.items():
            for count in column.value_counts().to_pylist():
                self.of[name][count["values"]] += count["counts"]
