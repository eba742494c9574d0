"""The headers of pages, which say what a column takes in memory."""

from collections.abc import Iterator
from typing import IO, NamedTuple

from captioner.jobs.storage.parquet.footer import Chunk
from captioner.jobs.storage.parquet.thrift import STRUCT, Thrift, is_integer

_MAX_HEADER = 16 * 1024 * 1024  # bytes, with statistics; Arrow's limit
_TYPE, _SIZE, _COMPRESSED = 1, 2, 3  # fields of a header
_ENCODING = {5: 2, 7: 2, 8: 4}  # by the field for data, a dictionary, and data in version 2
_VALUES = 1  # in each of them
_DICTIONARY_PAGE = 2
_PREFIXES = 7  # DELTA_BYTE_ARRAY: values that begin like the one before, which is not repeated


class Page(NamedTuple):
    """What the header of a page says; the size is in bytes, uncompressed."""

    is_dictionary: bool
    size: int
    values: int
    has_prefixes: bool


def pages(file: IO[bytes], chunk: Chunk) -> Iterator[Page]:
    """Yield the pages of a column of a row group; ValueError for damage."""
    start = chunk.start
    while start < chunk.end:
        file.seek(start)
        thrift = Thrift(file, _MAX_HEADER)
        fields, values, encodings = _header(thrift)
        numbers = [fields.get(number, -1) for number in (_TYPE, _SIZE, _COMPRESSED)]
        if min(*numbers, values) < 0:
            raise ValueError(f"there is no page at byte {start}")
        is_dictionary = fields[_TYPE] == _DICTIONARY_PAGE
        yield Page(is_dictionary, fields[_SIZE], values, _PREFIXES in encodings)
        start += thrift.count + fields[_COMPRESSED]


def _header(thrift: Thrift) -> tuple[dict[int, int], int, list[int]]:
    """Return the fields that are integers, the number of values, and the encodings of the page."""
    fields: dict[int, int] = {}
    values, encodings = 0, []
    for number, kind in thrift.fields():
        if number in _ENCODING and kind == STRUCT:
            about = thrift.integers()
            values += about.get(_VALUES, 0)
            encodings.append(about.get(_ENCODING[number], 0))
        elif is_integer(kind):
            fields[number] = thrift.integer()
        else:
            thrift.skip(kind)
    return fields, values, encodings
