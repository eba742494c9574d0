"""One pass over rows -> the numbers and examples of a report, in bounded memory."""

import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from captioner.jobs.rows.decided import decided, plain_table
from captioner.jobs.storage.backends.paths import OutPath
from captioner.jobs.table.layout import OutFolder, RunFolder
from captioner.jobs.table.read import (
    BATCH_ROWS,
    closing,
    column_batches,
    opened_files,
    readable,
    rechunked,
)
from captioner.jobs.table.reviews import decisions
from captioner.jobs.table.runs.rows import files_of_run, may_have_rows_of
from captioner.jobs.table.threshold import marked, new_threshold, table_threshold
from captioner.schemas.caption_table import Status, caption_table_schema
from captioner.schemas.job_report import JobReport

BINS = 20  # of the histogram of confidences
FINE_BINS = 50 * BINS  # to find the median
FAILURES = 5  # examples of each status
SHOWN = 8  # captions in each group of the gallery
RANDOM = 3 * SHOWN  # some of them are among the surest or the least sure
READ_SECONDS = 20.0  # that a run waits for its rows to be read
COLUMNS = (
    *("image_uri", "image_sha256", "run_id", "status", "error", "caption", "confidence"),
    *("needs_review", "width", "height", "captioner"),
)
MARK = "needs_review"
Rows = list[dict[str, Any]]

_SCHEMA = pa.schema(
    field.with_type(pa.string()) if field.name == "status" else field
    for field in caption_table_schema()
    if field.name in COLUMNS
)


@dataclass
class Collected:
    """The numbers and examples of some rows.

    `histogram` [FINE_BINS] counts confidences from 0 to 1, `below` [BINS] those below the
    threshold. The examples are rows with COLUMNS and DECIDED. `is_whole` is false if time was too
    short to read all rows.
    """

    threshold: float | None = None
    images: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    decisions: Counter[str] = field(default_factory=Counter)
    captioners: Counter[str] = field(default_factory=Counter)
    outdated: int = 0
    to_review: int = 0
    histogram: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(FINE_BINS, np.int64))
    below: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS, np.int64))
    failures: dict[str, Rows] = field(default_factory=lambda: defaultdict(list))
    lowest: Rows = field(default_factory=list)
    highest: Rows = field(default_factory=list)
    random: Rows = field(default_factory=list)
    is_whole: bool = True

    @property
    def median(self) -> float | None:
        """The confidence that half of the captions reach; None without any."""
        total = self.histogram.sum()
        if not total:
            return None
        return (int(np.searchsorted(self.histogram.cumsum(), total / 2)) + 0.5) / FINE_BINS


def of_table(out: OutFolder) -> Collected:
    """Collect the whole table; raise UsageError without one, and for a foreign file."""
    out.require_table()
    threshold = table_threshold(out)
    collected = Collected(threshold.min_confidence if threshold else None)
    return _collected(_rows_of_table(out), collected)


def _rows_of_table(out: OutFolder) -> Iterator[pa.Table]:
    in_force, threshold = decisions(out), new_threshold(out)
    for path, file in opened_files(out.table_files()):
        for rows in _plain_rows(path, file):
            yield decided(marked(rows, threshold) if threshold else rows, in_force)


def _plain_rows(path: OutPath, file: pq.ParquetFile) -> Iterator[pa.Table]:
    """Yield the rows of a file, with the columns that a report needs; close the file."""
    has_marks = MARK in file.schema_arrow.names  # files of the first schema have none
    names = [name for name in COLUMNS if name != MARK or has_marks]
    for batch in column_batches(path, file, names):
        rows = pa.Table.from_batches([batch])
        yield readable(path, partial(plain_table, rows, _SCHEMA))


def of_run(run: RunFolder, report: JobReport) -> Collected:
    """Collect the rows that a run has written; stop reading files after READ_SECONDS."""
    collected = Collected(report.min_confidence)
    end = time.monotonic() + READ_SECONDS

    def in_time() -> Iterator[pa.Table]:
        for rows in _rows_of_run(run, replaced=report.redone > 0):
            yield rows
            if time.monotonic() > end:
                collected.is_whole = False
                return

    return _collected(in_time(), collected)


def _rows_of_run(run: RunFolder, *, replaced: bool) -> Iterator[pa.Table]:
    """Yield the rows of a run, file by file, in random order; nothing for a file without any.

    Rows that `replaced` others are in files of other runs.
    """
    in_force = decisions(run.out)
    for path, file in opened_files(files_of_run(run, replaced=replaced)):
        if not may_have_rows_of(run.run_id, file.metadata):
            with closing(file):
                yield decided(plain_table(_SCHEMA.empty_table(), _SCHEMA), in_force)
            continue
        for rows in _plain_rows(path, file):
            yield decided(rows.filter(pc.equal(rows["run_id"], run.run_id)), in_force)


def _collected(tables: Iterable[pa.Table], collected: Collected) -> Collected:
    draw = np.random.default_rng(0)
    lowest, highest, random = (pa.table({}) for _ in range(3))
    for rows in rechunked(tables, BATCH_ROWS):
        _count(rows, collected)
        _add_failures(rows, collected)
        captioned = rows.filter(pc.equal(rows["status"], Status.OK))
        captioned = captioned.append_column("draw", pa.array(draw.random(len(captioned))))
        random = _first(RANDOM, random, captioned, "draw", "ascending")
        confident = captioned.filter(pc.is_valid(captioned["confidence"]))
        lowest = _first(SHOWN, lowest, confident, "confidence", "ascending")
        highest = _first(SHOWN, highest, confident, "confidence", "descending")
    collected.lowest, collected.highest = lowest.to_pylist(), highest.to_pylist()
    collected.random = random.to_pylist()
    return collected


def _first(count: int, found: pa.Table, rows: pa.Table, column: str, order: str) -> pa.Table:
    """Return the first rows, sorted by a column, among those found before and others."""
    rows = pa.concat_tables([found, rows]) if found.num_columns else rows
    keys = [(column, order), ("image_uri", "ascending")]
    return rows.take(pc.select_k_unstable(rows, count, keys)).combine_chunks()


def _count(rows: pa.Table, collected: Collected) -> None:
    collected.images += rows.num_rows
    counters = {
        "status": collected.statuses,
        "decision": collected.decisions,
        "captioner": collected.captioners,
    }
    for name, counts in counters.items():
        for count in rows[name].drop_null().value_counts().to_pylist():
            counts[count["values"]] += count["counts"]
    collected.to_review += pc.sum(rows["needs_review"]).as_py() or 0
    collected.outdated += pc.sum(rows["outdated"]).as_py() or 0
    confidence = rows["confidence"].drop_null().to_numpy().astype(np.float64)
    collected.histogram += np.histogram(confidence, FINE_BINS, (0, 1))[0]
    if collected.threshold is not None:
        low = confidence[confidence < float(np.float32(collected.threshold))]
        collected.below += np.histogram(low, BINS, (0, 1))[0]


def _add_failures(rows: pa.Table, collected: Collected) -> None:
    failed = rows.filter(pc.not_equal(rows["status"], Status.OK))
    for status in failed["status"].unique().to_pylist():
        found = collected.failures[status]
        if missing := FAILURES - len(found):
            of_kind = failed.filter(pc.equal(failed["status"], status))
            found += of_kind.slice(0, missing).to_pylist()
