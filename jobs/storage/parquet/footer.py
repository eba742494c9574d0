"""The footer of a Parquet file: where its columns are, and limits that no list of images meets.

Arrow takes about a kilobyte for each column of each row group, and ends the process where the
metadata of a column are encrypted; so the footer is read here first.
"""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, NamedTuple

import pyarrow as pa

from captioner.jobs.storage.parquet.thrift import BINARY, LIST, STRUCT, Thrift

MAX_FOOTER = 16 * 1024 * 1024  # bytes
MAX_COLUMNS = 2000
MAX_CHUNKS = 200_000  # columns of row groups
ROWS_PER_BYTE = 100  # of a file, at most: no list of images repeats itself as often
_TAIL = 8  # bytes: the length of the footer, then "PAR1"
_SCHEMA, _ROWS, _ROW_GROUPS, _ENCRYPTION = 2, 3, 4, 8  # fields of the footer
_COLUMNS = 1  # of a row group
_FILE, _METADATA, _CRYPTO, _CRYPTO_METADATA = 1, 3, 8, 9  # of a column of a row group
_LENGTH, _DATA, _DICTIONARY = 7, 9, 11  # of its metadata


class Chunk(NamedTuple):
    """The place of a column of a row group: positions in the file."""

    start: int
    end: int


def read_footer(stream: IO[bytes]) -> list[list[Chunk]]:
    """Return the places of the columns of each row group.

    ArrowInvalid for a damaged or encrypted file, and for one beyond the limits.
    """
    size, footer = _footer(stream)
    thrift = Thrift(io.BytesIO(footer), len(footer))
    groups: list[list[Chunk]] = []
    with _damage():
        for number, kind in thrift.fields():
            if (number, kind) == (_SCHEMA, LIST):
                _check_schema(thrift)
            elif number == _ROWS:
                _check_rows(thrift.integer(), size)
            elif (number, kind) == (_ROW_GROUPS, LIST):
                groups = _row_groups(thrift)
            elif number == _ENCRYPTION:
                raise _encrypted()
            else:
                thrift.skip(kind)
    return groups


@contextmanager
def _damage() -> Iterator[None]:
    try:
        yield
    except pa.ArrowInvalid:
        raise
    except ValueError as error:
        raise pa.ArrowInvalid(f"the footer is damaged: {error}") from error


def _footer(stream: IO[bytes]) -> tuple[int, bytes]:
    """Return the size of a file, and its footer."""
    size = stream.seek(0, os.SEEK_END)
    stream.seek(max(size - _TAIL, 0))
    tail = stream.read(_TAIL)
    length = int.from_bytes(tail[:4], "little")
    if tail[4:] == b"PARE":
        raise _encrypted()
    if tail[4:] != b"PAR1" or length > size - _TAIL:
        raise pa.ArrowInvalid("it is not a Parquet file, or its end is missing")
    if length > MAX_FOOTER:
        raise _beyond("bytes of its footer", length, MAX_FOOTER)
    stream.seek(size - _TAIL - length)
    return size, stream.read(length)


def _encrypted() -> pa.ArrowInvalid:
    return pa.ArrowInvalid("it is encrypted: write it without encryption")


def _beyond(what: str, found: int, limit: int) -> pa.ArrowInvalid:
    return pa.ArrowInvalid(
        f"the number of {what} is {found}, and the limit is {limit}: write it with fewer columns, "
        "or with larger row groups"
    )


def _check_schema(thrift: Thrift) -> None:
    for _ in _structs(thrift, "columns", 3 * MAX_COLUMNS):  # with those that hold others
        thrift.skip(STRUCT)


def _check_rows(rows: int, size: int) -> None:
    if rows > ROWS_PER_BYTE * size:
        raise pa.ArrowInvalid(f"it claims to have {rows} rows in {size} bytes")


def _row_groups(thrift: Thrift) -> list[list[Chunk]]:
    groups: list[list[Chunk]] = []
    chunks = 0
    for _ in _structs(thrift, "row groups", MAX_CHUNKS):
        groups.append([])
        for number, kind in thrift.fields():
            if (number, kind) == (_COLUMNS, LIST):
                places = _structs(thrift, "columns of row groups", MAX_CHUNKS - chunks)
                groups[-1] = [_chunk(thrift) for _ in places]
            else:
                thrift.skip(kind)
        chunks += len(groups[-1])
    return groups


def _structs(thrift: Thrift, what: str, limit: int) -> range:
    """Return a range of as many steps as a list has structs."""
    size, kind = thrift.list_head()
    if size and kind != STRUCT:
        raise ValueError("a list has values of another type than it should")
    if size > limit:
        raise _beyond(what, size, limit)
    return range(size)


def _chunk(thrift: Thrift) -> Chunk:
    chunk = Chunk(0, 0)
    for number, kind in thrift.fields():
        if number in (_CRYPTO, _CRYPTO_METADATA):
            raise _encrypted()
        if (number, kind) == (_FILE, BINARY):
            raise pa.ArrowInvalid("its columns are in other files: name those")
        if (number, kind) == (_METADATA, STRUCT):
            chunk = _place(thrift.integers())
        else:
            thrift.skip(kind)
    return chunk


def _place(fields: dict[int, int]) -> Chunk:
    start, length = fields.get(_DATA, -1), fields.get(_LENGTH, -1)
    if 0 < fields.get(_DICTIONARY, 0) < start:
        start = fields[_DICTIONARY]
    if start < 0 or length < 0:
        raise ValueError("a column has no place")
    return Chunk(start, start + length)
