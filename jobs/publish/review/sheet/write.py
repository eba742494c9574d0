"""The queue as a spreadsheet, to be filled in elsewhere."""

import csv
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from captioner.jobs.errors import TemporaryError, UsageError
from captioner.jobs.publish.review.queue import Filters, Queue, Scope, build_queue, table_version
from captioner.jobs.publish.review.sheet.cells import COLUMNS, guarded
from captioner.jobs.publish.review.texts import clean_text
from captioner.jobs.publish.rows import DECIDED, NEEDED, decided_batches
from captioner.jobs.table.reviews import decisions
from captioner.schemas.caption_table import caption_table_schema

MOST_ROWS = 1_048_575  # beside the names of the columns: what Excel opens
SCHEMA = pa.schema(
    caption_table_schema().field(name) for name in (*NEEDED, "confidence", "alternatives")
)
BETWEEN = " | "  # alternatives
BATCH = 10_000  # rows that are Python objects at the same time


def write_sheet(scope: Scope, path: Path) -> int:
    """Write what is to review, in the order of its review, to a new CSV file; return its rows.

    Beyond MOST_ROWS, which are held in memory, the surest captions are left out. Raise UsageError
    if the file exists.
    """
    if path.exists():
        raise UsageError(f"{path} exists: give another name, to keep what is filled in")
    table = _ordered(scope, build_queue(scope, Filters(), decisions(scope.out)))
    try:
        with path.open("x", encoding="utf-8-sig", newline="") as file:
            sheet = csv.writer(file, quoting=csv.QUOTE_ALL)
            sheet.writerow(COLUMNS)
            for batch in table.to_batches(max_chunksize=BATCH):
                sheet.writerows(map(_cells, batch.to_pylist()))
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from error
    return len(table)


def _ordered(scope: Scope, queue: Queue) -> pa.Table:
    """Return the rows of a queue in its order; the table is read once, in its own order."""
    file, row = queue.file[:MOST_ROWS], queue.row[:MOST_ROWS]
    as_stored = np.lexsort((row, file))
    stored_file, stored_row = file[as_stored], row[as_stored]
    parts, known, first = [pa.schema([*SCHEMA, *DECIDED]).empty_table()], None, 0
    for path, rows in decided_batches(scope.out, SCHEMA, queue.in_force):
        first, known = (first if path == known else 0), path
        number = queue.files.index(path) if path in queue.files else -1
        start, end = np.searchsorted(stored_file, [number, number + 1])
        inside = stored_row[start:end] - first
        wanted = inside[(inside >= 0) & (inside < len(rows))]
        parts.append(rows.take(pa.array(wanted)))
        first += len(rows)
    table = pa.concat_tables(parts, promote_options="default")
    if len(table) != len(row) or queue.version != table_version(scope.out):
        raise TemporaryError(f"{scope.out.captions} is being rewritten; try again")
    return table.take(pa.array(np.argsort(as_stored)))


def _cells(row: Mapping[str, Any]) -> list[str]:
    alternatives = [each["caption"] for each in row["alternatives"] or ()]
    confidence = row["confidence"]
    values = {
        "image_uri": row["image_uri"],
        "caption": row["caption"],
        "confidence": "" if confidence is None else f"{confidence:.3f}",
        "alternatives": BETWEEN.join(alternatives),
        "decision": "",
        "text": row["text"] or "",
    }
    values["version"] = f"v{filled_in(values)}-{state_of(row)}"
    return [guarded(values[name]) for name in COLUMNS]


def filled_in(cells: Mapping[str, str]) -> str:
    """Return a digest of the cells that a person may have changed."""
    return _digest([clean_text(cells[name]) for name in ("caption", "decision", "text")])


def state_of(row: Mapping[str, Any]) -> str:
    """Return what changes when an image, its caption or the decision about it changes."""
    names = ("image_uri", "image_sha256", "caption", "decision", "text", "outdated")
    return _digest([row[name] for name in names])


def _digest(values: Sequence[object]) -> str:
    return blake2b(repr(values).encode(errors="replace"), digest_size=6).hexdigest()
