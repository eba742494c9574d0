"""What the footer of a file says about its rows: readers skip rows by that, so it must be true."""

import io
from collections.abc import Iterator
from functools import cache
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

Values: TypeAlias = pa.Array | pa.ChunkedArray
MAGIC, TAIL_BYTES = b"PAR1", 8  # before the footer in a file of metadata; after it in any file
ARROW = "parquet-cpp-arrow"  # the author of all our files, of any version
_BYTES = {pa.string(): pa.binary(), pa.large_string(): pa.large_binary()}
_COMPARED = (
    *(pa.types.is_signed_integer, pa.types.is_float32, pa.types.is_float64, pa.types.is_boolean),
    *(pa.types.is_string, pa.types.is_large_string),
    lambda kind: pa.types.is_timestamp(kind) and kind.unit in ("us", "ms"),
)


def is_own_schema(file: pq.ParquetFile) -> bool:
    """Return whether Parquet's schema fits that of Arrow, as far as this version wrote the file."""
    wanted, author = _written(file.schema_arrow.remove_metadata())
    return file.metadata.created_by != author or bool(file.schema.equals(wanted))


def is_own_footer(file: pq.ParquetFile, source: pa.NativeFile) -> bool:
    """Return whether Arrow would write the same footer, as far as this version wrote the file.

    What Arrow passes over may keep other programs from reading the file.
    """
    _, author = _written(file.schema_arrow.remove_metadata())
    if file.metadata.created_by != author:
        return True
    again = io.BytesIO()
    file.metadata.write_metadata_file(again)
    size = file.metadata.serialized_size
    footer = source.read_at(size, source.size() - TAIL_BYTES - size)
    return bool(footer == again.getvalue()[len(MAGIC) : -TAIL_BYTES])


@cache
def _written(schema: pa.Schema) -> tuple[pq.ParquetSchema, str]:
    """Return the schema that Arrow writes for some columns, and how it names itself."""
    sink = pa.BufferOutputStream()
    pq.write_table(schema.empty_table(), sink)
    file = pq.ParquetFile(pa.BufferReader(sink.getvalue()))
    return file.schema, file.metadata.created_by


class GroupStatistics:
    """The statistics of a row group, which are compared with all its rows."""

    def __init__(self, file: pq.ParquetFile, number: int) -> None:
        self._group, self._schema = file.metadata.row_group(number), file.schema
        self._are_exact = str(file.metadata.created_by).startswith(ARROW)  # others may shorten
        self._rows = 0
        columns = map(self._schema.column, range(self._group.num_columns))
        self._columns = [_Column(column.max_repetition_level > 0) for column in columns]

    def add(self, batch: pa.RecordBatch) -> None:
        """Add the next rows of the group."""
        self._rows += batch.num_rows
        leaves = (leaf for column in batch.columns for leaf in _leaves(column))
        for column, leaf in zip(self._columns, leaves, strict=True):
            column.add(leaf)

    def check_rows(self) -> None:
        """Raise ValueError if the group has another number of rows."""
        if self._rows != self._group.num_rows:
            raise ValueError(f"its footer counts {self._group.num_rows:,} rows in a group")

    def wrong(self) -> Iterator[str]:
        """Yield the columns with wrong statistics, or an encoding that does not exist."""
        for number, column in enumerate(self._columns):
            chunk = self._group.column(number)
            # Otherwise, Arrow would end the process when it is asked for statistics.
            is_typed = chunk.physical_type == self._schema.column(number).physical_type
            is_known = "UNKNOWN" not in chunk.encodings  # which Arrow passes over
            if not (is_typed and is_known and column.fits(chunk, self._are_exact)):
                yield str(chunk.path_in_schema)


class _Column:
    """How many values of a column are not null, and their range, if they are compared."""

    def __init__(self, is_in_lists: bool) -> None:
        self._values, self._is_compared = 0, True
        self._is_counted = not is_in_lists  # Arrow 18 to 24 count the nulls of lists wrongly
        self._range: tuple[Any, Any] | None = None

    def add(self, leaf: Values | None) -> None:
        """Add values; None if they are of an unusual kind."""
        if leaf is None:
            self._is_counted = self._is_compared = False
            return
        self._values += len(leaf) - leaf.null_count
        self._is_compared = any(is_compared(leaf.type) for is_compared in _COMPARED)
        if self._is_compared and (ends := pc.min_max(_stored(leaf)))["min"].is_valid:
            known = [*ends.as_py().values(), *(self._range or ())]
            self._range = min(known), max(known)

    def fits(self, chunk: pq.ColumnChunkMetaData, exactly: bool) -> bool:
        """Return whether statistics are true."""
        found = chunk.statistics
        if found is None:
            return True
        is_counted = self._is_counted and found.has_null_count
        if is_counted and chunk.num_values - found.null_count != self._values:
            return False
        if not (found.has_min_max and self._is_compared):
            return True
        return self._has_range(found.min_raw, found.max_raw, exactly)

    def _has_range(self, low: Any, high: Any, exactly: bool) -> bool:
        if self._range is None or exactly:
            return self._range == (low, high)
        return bool(low <= self._range[0] and self._range[1] <= high)


def _stored(leaf: Values) -> Values:
    """Return values as Parquet stores them, since Python cannot hold every time or text."""
    if pa.types.is_timestamp(leaf.type):
        return leaf.cast(pa.int64())
    return leaf.cast(_BYTES.get(leaf.type, leaf.type))


def _leaves(column: Values) -> Iterator[Values | None]:
    """Yield the values of a column as Parquet has them: a column for each field of a struct."""
    kind = column.type
    if pa.types.is_list(kind):
        yield from _leaves(pc.list_flatten(column))
    elif pa.types.is_struct(kind):
        for field in column.flatten():
            yield from _leaves(field)
    elif pa.types.is_dictionary(kind):
        yield column.cast(kind.value_type)
    elif isinstance(kind, pa.BaseExtensionType) or kind.num_fields:
        yield from [None] * _leaf_count(kind)
    else:
        yield column


def _leaf_count(kind: pa.DataType) -> int:
    kind = kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind
    fields = [kind.field(number).type for number in range(kind.num_fields)]
    return sum(map(_leaf_count, fields)) or 1
