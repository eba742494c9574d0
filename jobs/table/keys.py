"""The keys of the table's rows, in buckets; rows of images that have a later one."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from captioner.jobs.storage.backends.paths import OutPath
from captioner.jobs.table.buckets import BUCKET_ROWS, BUCKETS, Buckets
from captioner.jobs.table.read import column_batches, opened_files
from captioner.schemas.image_record import IMAGE_URI, IMAGE_VERSION

POSITION = "position"  # of an image in the listing, or of a row in its file
FILE, AT, STALE, RETRY = "file", "at", "stale", "retry"
_KEY = [(IMAGE_URI, pa.string()), (IMAGE_VERSION, pa.string()), (POSITION, pa.int64())]
_ROW = pa.schema(
    [*_KEY, (FILE, pa.int32()), (AT, pa.int64()), (STALE, pa.bool_()), (RETRY, pa.bool_())]
)

_TABLE_COLUMNS = (IMAGE_URI, IMAGE_VERSION, "status", "captioner", "annotated_at")


@dataclass(frozen=True)
class Redo:
    """Which rows of unchanged images are work again.

    `captioner` is the identity of the one that runs now: rows of others are stale, and work if
    `stale` says so. Rows with one of the statuses `failures` are work in any case.
    """

    captioner: str | None = None
    stale: bool = False
    failures: frozenset[str] = frozenset()


class TableBuckets(Buckets):
    """Rows of the table; `types` has the types of all columns of its files."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, _ROW)
        self.types: dict[str, pa.DataType] = {}


def table_buckets(files: Iterable[OutPath], redo: Redo, path: Path) -> TableBuckets:
    """The rows of the table's files. UsageError for a file that is none of a table's."""
    buckets = TableBuckets(path)
    for number, (name, file) in enumerate(opened_files(files)):
        buckets.types |= {column.name: column.type for column in file.schema_arrow}
        start = 0
        for batch in column_batches(name, file, _TABLE_COLUMNS):
            buckets.add(_row_columns(batch, number, start, redo))
            start += batch.num_rows
    return buckets


def _row_columns(batch: pa.RecordBatch, file: int, start: int, redo: Redo) -> list[pa.Array]:
    uri, version, status, captioner, at = batch.columns
    return [
        uri,
        version,
        pa.array(np.arange(start, start + batch.num_rows)),
        pa.repeat(pa.scalar(file, pa.int32()), batch.num_rows),
        at.cast(pa.int64()),
        pc.not_equal(captioner, redo.captioner or ""),
        pc.is_in(status.cast(pa.string()), pa.array(redo.failures, pa.string())),
    ]


def superseded(table: Buckets) -> Iterator[pd.DataFrame]:
    """The table's rows of images that have a later row: the numbers of their files, and positions.

    Among rows of one time, that of the last file is the latest.
    """
    for rows in table.read(_buckets_together(table.rows)):
        in_order, surplus = _by_time(rows.to_pandas())
        yield in_order.loc[surplus, [POSITION, FILE]]


def add_surplus(
    surplus: dict[OutPath, list[int]], files: Sequence[OutPath], rows: pd.DataFrame
) -> None:
    """Add rows of `superseded`, as positions by file."""
    for file, position in rows[[FILE, POSITION]].itertuples(index=False):
        surplus.setdefault(files[file], []).append(position)


def _buckets_together(rows: int) -> int:
    return max(1, BUCKETS * BUCKET_ROWS // max(rows, BUCKET_ROWS))


def _by_time(rows: pd.DataFrame) -> tuple[pd.DataFrame, "pd.Series[bool]"]:
    """Rows in the order of time, and which of them have a later one."""
    in_order = rows.sort_values(AT, kind="stable", ignore_index=True)
    return in_order, in_order.duplicated(IMAGE_URI, keep="last")
