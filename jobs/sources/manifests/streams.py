"""Manifests as streams of bytes, of lines, and of record batches with one schema."""

import codecs
import io
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pyarrow as pa

from captioner.jobs.errors import FetchError, UsageError
from captioner.jobs.sources.source import BATCH_ROWS
from captioner.jobs.storage.failures import check_final
from captioner.jobs.storage.filesystems import open_stream
from captioner.jobs.storage.uris import file_name, is_local

T = TypeVar("T")
MAX_LINE = 4 * 1024 * 1024  # bytes; also the block in which a CSV file is read
MAX_COLUMNS = 2000
BATCH_BYTES = 4 * 1024 * 1024  # characters of the lines that are parsed together, about
_BLOCK = 64 * 1024  # bytes
_MARKS = {  # the longer ones first, as one begins with another
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def open_file(path: str) -> io.BufferedReader:
    """Open a manifest to be read once as UTF-8: a .gz decompressed, UTF-16 by its mark decoded."""
    compression = "gzip" if file_name(path).lower().endswith(".gz") else None
    source = Path(path).open("rb") if is_local(path) else open_stream(path)  # noqa: SIM115
    if compression and not source.peek(1):  # not an error to pyarrow
        raise UsageError(f"cannot read {path}: it is empty, so it is not a gzip file")
    file = io.BufferedReader(pa.input_stream(source, compression=compression), _BLOCK)
    start = file.peek(4)[:4]
    encoding = next((name for mark, name in _MARKS.items() if start.startswith(mark)), None)
    if encoding:
        utf8 = pa.transcoding_input_stream(pa.input_stream(file), encoding, "utf-8")
        return io.BufferedReader(utf8, _BLOCK)
    if len(start) == 4 and any(start[::2]) != any(start[1::2]):
        raise UsageError(
            f"cannot read {path}: it looks like UTF-16 without a byte order mark: save it as UTF-8"
        )
    return file


def text_lines(path: str) -> Iterator[tuple[int, str]]:
    """Yield the lines that are not blank, without their ends, with their numbers from 1."""
    with open_file(path) as file:
        for number, line in _lines(path, file):
            text = _decoded(path, number, line)
            if text.strip():
                yield number, text


def in_batches(lines: Iterator[tuple[int, str]]) -> Iterator[list[tuple[int, str]]]:
    """Yield lines, at most BATCH_ROWS together, and few if they are long."""
    batch: list[tuple[int, str]] = []
    size = 0
    for number, line in lines:
        batch.append((number, line))
        size += len(line)
        if len(batch) == BATCH_ROWS or size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _lines(path: str, file: io.BufferedReader) -> Iterator[tuple[int, bytes]]:
    """Yield lines with their numbers, and without their ends: of Unix, Windows, or old Macs.

    Blank ones may be left out.
    """
    number, rest = 1, b""
    while block := file.read1(_BLOCK):
        text = rest + block
        lines = text.splitlines(keepends=True)
        rest = b"" if lines[-1].endswith(b"\n") else lines.pop()  # an LF may follow its CR
        if not text.isspace():  # a small .gz may have a billion blank lines
            yield from enumerate((line.rstrip(b"\r\n") for line in lines), start=number)
        number += len(lines)
        if len(rest) > MAX_LINE:
            raise UsageError(
                f"{path}: line {number} is too long; the limit is {MAX_LINE} bytes: leave out or "
                "shorten its longest values"
            )
    if rest:
        yield number, rest.rstrip(b"\r")


def _decoded(path: str, number: int, line: bytes) -> str:
    try:
        return line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: line {number} is not UTF-8: save it as UTF-8") from error


def conform(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """Return a batch with the columns and types of a schema, null where the batch has none."""
    columns = [
        batch.column(field.name).cast(field.type)
        if field.name in batch.schema.names
        else pa.nulls(batch.num_rows, field.type)
        for field in schema
    ]
    return pa.record_batch(columns, schema=schema)


def read_or_refuse(path: str, read: Callable[[], T]) -> T:
    """Return what `read()` does; UsageError that names the file if it cannot be read.

    TemporaryError for transient failures of a remote store.
    """
    try:
        return read()
    except (OSError, EOFError, FetchError, pa.ArrowException, UnicodeError, zlib.error) as error:
        if isinstance(error, FetchError):
            check_final(path, error)
        text = getattr(error, "strerror", None) or str(error)
        reason = text.partition("\n")[0] or type(error).__name__
        raise UsageError(f"cannot read {path}: {reason}") from error
