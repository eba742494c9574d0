"""The queue as a spreadsheet, to be filled in elsewhere."""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from captioner.jobs.errors import TemporaryError, UsageError
from captioner.jobs.publish.review.item import other_captions
from captioner.jobs.publish.review.queue import Filters, Queue, Scope, build_queue, table_version
from captioner.jobs.publish.review.sheet.cells import COLUMNS, filled_in, state_of
from captioner.jobs.publish.spreadsheets import guarded
from captioner.jobs.rows.decided import DECIDED, NEEDED, decided_batches
from captioner.jobs.table.reviews import decisions
from captioner.schemas.caption_table import caption_table_schema

MOST_ROWS = 1_048_575  # beside the names of the columns: what Excel opens
SCHEMA = pa.schema(
    caption_table_schema().field(name) for name in (*NEEDED, "confidence", "alternatives", "former")
)
BETWEEN = " | "  # alternatives
BATCH = 10_000  # rows that are Python objects at the same time


def write_sheet(scope: Scope, path: Path) -> int:
    """Write what is to review, in the order of its review, to a new CSV file; return its rows.

    Beyond MOST_ROWS, which are held in memory, the surest captions are left out. Without rows,
    there is no file. Raise UsageError if the file exists.
    """
    if path.exists():
        raise UsageError(f"{path} exists: give another name, to keep what is filled in")
    table = _ordered(scope, build_queue(scope, Filters(), decisions(scope.out)))
    if not len(table):
        return 0
    try:
        _write(table, path)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from error
    return len(table)


def _write(table: pa.Table, path: Path) -> None:
    """Write a file beside the final one, and rename it: half a sheet never has the name."""
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("w", encoding="utf-8-sig", newline="") as file:
            sheet = csv.writer(file, quoting=csv.QUOTE_ALL)
            sheet.writerow(COLUMNS)
            for batch in table.to_batches(max_chunksize=BATCH):
                sheet.writerows(map(_cells, batch.to_pylist()))
        part.rename(path)
    finally:
        part.unlink(missing_ok=True)


def _ordered(scope: Scope, queue: Queue) -> pa.Table:
    """Return the rows of a queue in its order; the table is read once, in its own order."""
    file, row = queue.file[:MOST_ROWS], queue.row[:MOST_ROWS]
    as_stored = np.lexsort((row, file))
    stored_file, stored_row = file[as_stored], row[as_stored]
    numbers = {path: number for number, path in enumerate(queue.files)}
    parts, known, first = [pa.schema([*SCHEMA, *DECIDED]).empty_table()], None, 0
    for path, rows in decided_batches(scope.out, SCHEMA, queue.in_force):
        first, known = (first if path == known else 0), path
        number = numbers.get(path, -1)
        start, end = np.searchsorted(stored_file, [number, number + 1])
        inside = stored_row[start:end] - first
        wanted = inside[(inside >= 0) & (inside < len(rows))]
        parts.append(rows.take(pa.array(wanted)))
        first += len(rows)
    table = pa.concat_tables(parts, promote_options="default")
    # A run may have added files meanwhile, but changed none.
    if len(table) != len(row) or queue.version.items() - table_version(scope.out).items():
        raise TemporaryError(f"{scope.out.captions} is being rewritten; try again")
    return table.take(pa.array(np.argsort(as_stored)))


def _cells(row: Mapping[str, Any]) -> list[str]:
    confidence = row["confidence"]
    values = {
        "image_uri": row["image_uri"],
        "caption": row["caption"],
        "confidence": "" if confidence is None else f"{confidence:.3f}",
        "alternatives": BETWEEN.join(other_captions(row)),
        "decision": "",
        "text": row["text"] or "",
    }
    values["version"] = f"v{filled_in(values)}-{state_of(row)}"
    return [guarded(values[name]) for name in COLUMNS]
