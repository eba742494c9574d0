"""The rows of a Parquet file in batches that fit into memory, whatever the file claims."""

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from captioner.jobs.storage.parquet.open_file import OpenFile, is_text
from captioner.jobs.storage.parquet.pages import Page, pages
from captioner.jobs.storage.parquet.types import least_bytes, plain_schema

MAX_PAGES = 256 * 1024 * 1024  # bytes of the largest pages of all columns, which are open together
MAX_NESTED = 32_000_000  # values of a list column in a row group, as a row may have all of them
MAX_ROW = 4 * 1024 * 1024  # bytes of a row
BATCH_BYTES = 8 * 1024 * 1024  # of a batch, unless it has only one row
_DECODED = 64 * 1024 * 1024  # bytes that Arrow may make of rows whose values are shared


def plain_batches(
    file: OpenFile, rows: int, columns: list[str] | None = None
) -> Iterator[pa.RecordBatch]:
    """Yield the rows of some columns, or all, with plain types, at most `rows` in a batch.

    ArrowInvalid for a row or a page that is too large, and for damage.
    """
    leaves, first = file.leaves(columns), 1
    for group in range(file.arrow.num_row_groups):
        if not file.arrow.metadata.row_group(group).num_rows:
            continue
        found = {leaf: _pages(file, group, leaf) for leaf in leaves}
        _check_pages(file, found)
        together = _rows_at_once(file, group, found, rows)
        for batch in file.arrow.iter_batches(together, [group], columns):
            for part in _parts(batch, first):
                first += part.num_rows
                yield part.cast(plain_schema(part.schema)) if columns != [] else part


def _pages(file: OpenFile, group: int, leaf: int) -> list[Page]:
    try:
        return [*pages(file.stream, file.chunks[group][leaf])]
    except (ValueError, IndexError) as error:
        name = file.arrow.metadata.schema.column(leaf).path
        raise pa.ArrowInvalid(f"the column {name} is damaged: {error}") from error


def _check_pages(file: OpenFile, found: dict[int, list[Page]]) -> None:
    """Raise ArrowInvalid if the pages of a row group would take too much memory."""
    size = 0
    for leaf, leaf_pages in found.items():
        column = file.arrow.metadata.schema.column(leaf)
        size += _largest(leaf_pages, True) + _largest(leaf_pages, False)
        if size > MAX_PAGES:
            raise pa.ArrowInvalid(
                f"up to the column {column.path}, pages have {size} bytes, and the limit is "
                f"{MAX_PAGES}: write smaller ones"
            )
        if column.max_repetition_level and sum(page.values for page in leaf_pages) > MAX_NESTED:
            raise pa.ArrowInvalid(
                f"the column {column.path} has lists with more than {MAX_NESTED} values in a row "
                "group: write smaller row groups"
            )


def _largest(found: list[Page], is_dictionary: bool) -> int:
    sizes = (page.size for page in found if page.is_dictionary is is_dictionary)
    return max(sizes, default=0)


def _rows_at_once(file: OpenFile, group: int, found: dict[int, list[Page]], rows: int) -> int:
    """Return how many rows may be read together, as few bytes of a page may stand for many."""
    width = sum(map(least_bytes, file.arrow.schema_arrow.types))
    if width > _DECODED:
        raise pa.ArrowInvalid(f"a row has {width} bytes by the types of its columns")
    for leaf, leaf_pages in found.items():
        column = file.arrow.metadata.schema.column(leaf)
        if is_text(column) and not column.max_repetition_level:
            width += _longest_shared(file, group, leaf, leaf_pages, rows)
    return max(min(rows, _DECODED // max(width, 1)), 1)


def _longest_shared(file: OpenFile, group: int, leaf: int, found: list[Page], rows: int) -> int:
    """Return a bound for the bytes of a value that costs its page less than itself."""
    prefixed = max((page.size for page in found if page.has_prefixes), default=0)
    dictionary = _largest(found, True)
    if dictionary * rows > _DECODED:
        dictionary = min(dictionary, _longest_in_dictionary(file, group, leaf))
    return max(prefixed, dictionary)


def _longest_in_dictionary(file: OpenFile, group: int, leaf: int) -> int:
    path = file.arrow.metadata.schema.column(leaf).path
    batch = next(file.shared.iter_batches(1, [group], [path]))
    column = batch.column(0)
    while pa.types.is_struct(column.type):
        column = column.field(0)
    return int(pc.max(pc.binary_length(column.dictionary)).as_py() or 0)


def _parts(batch: pa.RecordBatch, first: int) -> Iterator[pa.RecordBatch]:
    """Yield a batch in parts that fit into memory; `first` is the number of its first row."""
    size = sum(map(_size, batch.columns))
    half = batch.num_rows // 2
    if size <= BATCH_BYTES or (not half and size <= MAX_ROW):
        yield batch
    elif half:
        yield from _parts(batch.slice(0, half), first)
        yield from _parts(batch.slice(half), first + half)
    else:
        raise pa.ArrowInvalid(f"row {first} has {size} bytes, and the limit is {MAX_ROW}")


def _size(column: pa.Array) -> int:
    """Return the bytes of a column's values if none were shared."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        lengths = pc.binary_length(column.dictionary).cast(pa.int64())
        return int(pc.sum(lengths.take(column.indices)).as_py() or 0) + column.indices.nbytes
    if pa.types.is_struct(kind):
        return sum(map(_size, column.flatten()))
    if pa.types.is_map(kind):
        start, end = column.offsets[0].as_py(), column.offsets[-1].as_py()
        return sum(_size(each.slice(start, end - start)) for each in (column.keys, column.items))
    if pa.types.is_nested(kind):
        return _size(column.flatten())
    return int(column.nbytes)
