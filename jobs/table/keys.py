"""The keys of the table's rows, in buckets, and which rows are superseded."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from captioner.jobs.storage.backends.paths import OutPath
from captioner.jobs.table.buckets import Buckets, buckets_together
from captioner.jobs.table.embeddings import EmbeddedHashes
from captioner.jobs.table.read import column_batches, opened_files
from captioner.schemas.caption_table import Status, current_names
from captioner.schemas.image_record import IMAGE_URI, IMAGE_VERSION

Surplus = dict[OutPath, list[int]]  # the positions of superseded rows, by file

POSITION = "position"  # of an image in the listing, or of a row in its file
FILE, AT, STALE, RETRY, LACKING = "file", "at", "stale", "retry", "lacking"
FIRST, DONE = "first_confidence", "done"
STATUS = "status_number"  # of a row: its place in STATUSES
STATUSES = tuple(map(str, Status))
KEY = [(IMAGE_URI, pa.string()), (IMAGE_VERSION, pa.string()), (POSITION, pa.int64())]
_ROW = pa.schema(
    [
        *KEY,
        (FILE, pa.int32()),
        (AT, pa.int64()),
        (STATUS, pa.int8()),
        *((n, pa.bool_()) for n in (STALE, RETRY, LACKING)),
        (FIRST, pa.float32()),
        (DONE, pa.bool_()),
    ]
)
DOUBTS = np.dtype([(FIRST, np.float32), (DONE, np.bool_)])
Doubts = npt.NDArray[Any]  # of DOUBTS: the first confidence, NaN without doubt; not to ask again

_TABLE_COLUMNS = (IMAGE_URI, IMAGE_VERSION, "status", "captioner", "annotated_at")


@dataclass(frozen=True)
class Redo:
    """The rows of unchanged images that a run redoes.

    `captioner` is the identity of the run's captioner: rows by others are stale, and are redone if
    `stale` is true. A second opinion is not stale. Rows with one of the
    statuses `failures` are redone in any case, as are its own captions of images without an
    embedding, if `embedded` says which have one, and all rows if `everything` is true. With
    `doubts`, by file, a run gives second opinions and does nothing else.
    """

    captioner: str | None = None
    stale: bool = False
    failures: frozenset[str] = frozenset()
    everything: bool = False
    embedded: EmbeddedHashes | None = None
    doubts: Mapping[OutPath, Doubts] | None = None


class TableBuckets(Buckets):
    """The rows of the table; `types` has the types of all columns of its files."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, _ROW)
        self.types: dict[str, pa.DataType] = {}


def table_buckets(files: Iterable[OutPath], redo: Redo, path: Path) -> TableBuckets:
    """Read the keys of the table's rows; raise UsageError for a foreign file."""
    buckets = TableBuckets(path)
    for number, (name, file) in enumerate(opened_files(files)):
        schema = file.schema_arrow
        buckets.types |= dict(zip(current_names(schema), schema.types, strict=True))
        start = 0
        columns = [*_TABLE_COLUMNS, *(["image_sha256"] if redo.embedded else [])]
        if _has_former(file.schema_arrow):
            columns.append("former")
        doubts = _doubts_of(name, file.metadata.num_rows, redo)
        for batch in column_batches(name, file, columns):
            end = start + batch.num_rows
            buckets.add(
                [
                    *_row_columns(batch, number, start, redo),
                    *doubts.slice(start, batch.num_rows).columns,
                ]
            )
            start = end
    return buckets


def _row_columns(batch: pa.RecordBatch, file: int, start: int, redo: Redo) -> list[pa.Array]:
    uri, version, status, _, at = (batch[name] for name in _TABLE_COLUMNS)
    stale = _is_stale(batch, redo)
    lacking = pa.repeat(False, batch.num_rows)
    if redo.embedded:
        own = pc.equal(batch["captioner"], redo.captioner or "")
        own = pc.and_(own, pc.equal(status.cast(pa.string()), Status.OK))
        lacking = pc.and_not(own, redo.embedded.contain(batch["image_sha256"]))
    return [
        uri,
        version,
        pa.array(np.arange(start, start + batch.num_rows)),
        pa.repeat(pa.scalar(file, pa.int32()), batch.num_rows),
        at.cast(pa.int64()),
        pc.index_in(status.cast(pa.string()), pa.array(STATUSES)).cast(pa.int8()),
        stale,
        pc.is_in(status.cast(pa.string()), pa.array(redo.failures, pa.string())),
        lacking,
    ]


def _is_stale(batch: pa.RecordBatch, redo: Redo) -> pa.Array:
    stale = pc.not_equal(batch["captioner"], redo.captioner or "")
    return pc.and_not(stale, batch["former"].is_valid()) if _has_former(batch.schema) else stale


def _has_former(schema: pa.Schema) -> bool:
    """Return whether rows have former captions: a manifest's column may have that name, too."""
    place = schema.get_field_index("former")
    return place >= 0 and pa.types.is_struct(schema.field(place).type)


def _doubts_of(path: OutPath, rows: int, redo: Redo) -> pa.RecordBatch:
    """Return the doubts about the rows of a file; none if it is not the file that was read."""
    doubts = (redo.doubts or {}).get(path)
    if doubts is None or len(doubts) != rows:
        nothing = [pa.nulls(rows, pa.float32()), pa.nulls(rows, pa.bool_())]
        return pa.record_batch(nothing, names=[FIRST, DONE])
    columns = [pa.array(doubts[FIRST], from_pandas=True), pa.array(doubts[DONE])]
    return pa.record_batch(columns, names=[FIRST, DONE])


def superseded(table: Buckets, files: Sequence[OutPath]) -> Surplus:
    """Return the superseded rows, those whose image has a later row."""
    surplus: Surplus = {}
    for rows in table.read(buckets_together(table.rows)):
        in_order, is_surplus = by_time(rows.to_pandas())
        add_surplus(surplus, files, in_order[is_surplus])
    return surplus


def add_surplus(surplus: Surplus, files: Sequence[OutPath], rows: pd.DataFrame) -> None:
    """Add rows, given by the numbers of their files and their positions in them."""
    for file, position in rows[[FILE, POSITION]].itertuples(index=False):
        surplus.setdefault(files[file], []).append(position)


def by_time(rows: pd.DataFrame) -> tuple[pd.DataFrame, "pd.Series[bool]"]:
    """Return rows sorted by time, then by file, and which of them have a later one."""
    in_order = rows.sort_values(AT, kind="stable", ignore_index=True)
    return in_order, in_order.duplicated(IMAGE_URI, keep="last")
