"""The listing against the table: what is to become of each listed image, in bounded memory.

Both are cut into buckets on disk, by a hash of the URI, and compared bucket by bucket: a Grace
hash join (Kitsuregawa et al. 1983). Within a bucket the URIs themselves are compared.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from jobs.store import OutPath
from jobs.table import column_batches, opened_files
from schemas.image_record import IMAGE_URI, IMAGE_VERSION

BUCKETS = 256  # of 10 million rows, each has about 40,000
BUCKET_ROWS = 40_000  # of a smaller table, several buckets are compared at once
SPILL_ROWS = 400_000  # in memory at once

POSITION = "position"  # of an image in the listing, or of a row in its file
FILE, AT, STALE, RETRY = "file", "at", "stale", "retry"
_KEY = [(IMAGE_URI, pa.string()), (IMAGE_VERSION, pa.string()), (POSITION, pa.int64())]
_LISTED = pa.schema(_KEY)
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


@dataclass
class Counts:
    """How many images are what.

    Of the `listed` images, once each, `new` ones have no row; those with a row are `changed` since,
    or redone because they are `stale` or to be `retried`, or else `already_there`, `kept_stale` of
    them by another captioner. `vanished` images have a row and are not listed.
    """

    listed: int = 0
    duplicates: int = 0
    new: int = 0
    changed: int = 0
    stale: int = 0
    retried: int = 0
    already_there: int = 0
    kept_stale: int = 0
    vanished: int = 0

    def add(self, other: "Counts") -> None:
        """Add the counts of other images."""
        for field in fields(self):
            total = getattr(self, field.name) + getattr(other, field.name)
            setattr(self, field.name, total)


@dataclass(frozen=True)
class Compared:
    """What becomes of the images of one bucket.

    `new` are positions in the listing; so are those of `redo`, each with the number of the file
    that has the row to be replaced. `vanished` are rows by their URI, `surplus` by their position,
    both with the number of their file.
    """

    counts: Counts
    new: npt.NDArray[np.int64]
    redo: pd.DataFrame
    vanished: pd.DataFrame
    surplus: pd.DataFrame


class Buckets:
    """Rows on disk by bucket: an Arrow file with a batch for each bucket in turn."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.path, self._schema = path, schema
        options = pa.ipc.IpcWriteOptions(compression="lz4")
        self._writer = pa.ipc.new_file(str(path), schema, options=options)
        self._waiting: list[pa.RecordBatch] = []
        self.rows = self._spilled = 0

    def add(self, columns: Sequence[pa.Array]) -> None:
        """Add rows, as columns of the schema."""
        batch = pa.record_batch(columns, schema=self._schema)
        self._waiting.append(batch)
        self.rows += batch.num_rows
        if self.rows - self._spilled >= SPILL_ROWS:
            self._spill()

    def _spill(self) -> None:
        rows = pa.Table.from_batches(self._waiting, self._schema)
        uris = rows[IMAGE_URI].to_numpy()
        buckets = pd.util.hash_array(uris, categorize=False) % BUCKETS
        order = np.argsort(buckets, kind="stable")
        ends = np.searchsorted(buckets[order], np.arange(BUCKETS), side="right")
        sorted_rows = rows.take(pa.array(order)).combine_chunks()
        for start, end in zip([0, *ends[:-1]], ends, strict=True):
            self._writer.write_batch(_one_batch(sorted_rows.slice(start, end - start)))
        self._waiting, self._spilled = [], self.rows

    def read(self, together: int) -> Iterator[pa.Table]:
        """The rows of each bucket, in the order they were added, some buckets together.

        Nothing can be added any more.
        """
        self._spill()
        self._writer.close()
        with pa.OSFile(str(self.path)) as file:
            reader = pa.ipc.open_file(file)
            for first in range(0, BUCKETS, together):
                buckets = range(first, min(first + together, BUCKETS))
                batches = [
                    reader.get_batch(number)
                    for bucket in buckets
                    for number in range(bucket, reader.num_record_batches, BUCKETS)
                ]
                yield pa.Table.from_batches(batches, self._schema)


def _one_batch(rows: pa.Table) -> pa.RecordBatch:
    batches = rows.to_batches()
    return batches[0] if batches else pa.RecordBatch.from_pylist([], rows.schema)


class ListedBuckets(Buckets):
    """Listed images."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, _LISTED)

    def add_listed(self, batch: pa.RecordBatch) -> None:
        """Add the next images of the listing."""
        positions = np.arange(self.rows, self.rows + batch.num_rows)
        self.add([batch.column(IMAGE_URI), batch.column(IMAGE_VERSION), pa.array(positions)])


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


def compare(
    listing: Buckets, table: Buckets, redo: Redo, scope: Callable[[str], bool]
) -> Iterator[Compared]:
    """What becomes of the images, bucket by bucket.

    Only rows whose URI is in `scope` can have vanished.
    """
    together = _buckets_together(max(listing.rows, table.rows))
    for listed, rows in zip(listing.read(together), table.read(together), strict=True):
        yield _compare(listed.to_pandas(), rows.to_pandas(), redo, scope)


def superseded(table: Buckets) -> Iterator[pd.DataFrame]:
    """The table's rows of images that have a later row: the numbers of their files, and positions.

    Among rows of one time, that of the last file is the latest.
    """
    for rows in table.read(_buckets_together(table.rows)):
        in_order, surplus = _by_time(rows.to_pandas())
        yield in_order.loc[surplus, [POSITION, FILE]]


def _buckets_together(rows: int) -> int:
    return max(1, BUCKETS * BUCKET_ROWS // max(rows, BUCKET_ROWS))


def _by_time(rows: pd.DataFrame) -> tuple[pd.DataFrame, "pd.Series[bool]"]:
    """Rows in the order of time, and which of them have a later one."""
    in_order = rows.sort_values(AT, kind="stable", ignore_index=True)
    return in_order, in_order.duplicated(IMAGE_URI, keep="last")


def _compare(
    listed: pd.DataFrame, rows: pd.DataFrame, redo: Redo, scope: Callable[[str], bool]
) -> Compared:
    duplicate = listed.duplicated(IMAGE_URI)
    rows, surplus = _by_time(rows)
    latest = rows[~surplus].rename_axis("row").reset_index()
    pairs = listed[~duplicate].merge(latest, "left", on=IMAGE_URI, suffixes=("", "_then"))

    has_row = pairs[FILE].notna()
    version, then = pairs[IMAGE_VERSION], pairs[f"{IMAGE_VERSION}_then"]
    changed = has_row & version.notna() & (then.isna() | (version != then))
    stale = has_row & ~changed & pairs[STALE].eq(True)
    redo_stale = stale & redo.stale
    retried = has_row & ~changed & ~redo_stale & pairs[RETRY].eq(True)
    work_again = changed | redo_stale | retried

    is_listed = np.zeros(len(rows), bool)
    is_listed[pairs["row"].dropna().astype(int)] = True
    unlisted = rows[~is_listed & ~surplus]
    in_scope = np.array([scope(uri) for uri in unlisted[IMAGE_URI]], bool)
    vanished = unlisted[in_scope]
    counts = Counts(
        listed=len(pairs),
        duplicates=int(duplicate.sum()),
        new=int((~has_row).sum()),
        changed=int(changed.sum()),
        stale=int(redo_stale.sum()),
        retried=int(retried.sum()),
        already_there=int((has_row & ~work_again).sum()),
        kept_stale=int((stale & ~work_again).sum()),
        vanished=len(vanished),
    )
    return Compared(
        counts,
        pairs.loc[~has_row, POSITION].to_numpy(),
        pairs.loc[work_again, [POSITION, FILE]].astype(int),
        vanished[[IMAGE_URI, FILE]],
        rows.loc[surplus, [POSITION, FILE]],
    )
