"""Manifests as streams of bytes, of lines, and of record batches with one schema."""

import io
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pyarrow as pa

from captioner.jobs.errors import FetchError, UsageError
from captioner.jobs.storage.failures import check_final
from captioner.jobs.storage.filesystems import open_stream
from captioner.jobs.storage.uris import file_name, is_local

T = TypeVar("T")
MAX_LINE = 16 * 1024 * 1024  # bytes; also the block in which a CSV file is read


def open_file(path: str) -> pa.NativeFile:
    """Open a manifest for reading from its beginning to its end, and decompress a .gz."""
    compression = "gzip" if file_name(path).lower().endswith(".gz") else None
    source = Path(path).open("rb") if is_local(path) else open_stream(path)  # noqa: SIM115
    if compression and not source.peek(1):  # not an error to pyarrow
        raise UsageError(f"cannot read {path}: it is empty, so it is not a gzip file")
    return pa.input_stream(source, compression=compression)


def text_lines(path: str) -> Iterator[tuple[int, str]]:
    """Yield the lines that are not blank, without their ends, with their numbers from 1."""
    with io.BufferedReader(open_file(path)) as file:
        for number, line in enumerate(iter(lambda: file.readline(MAX_LINE), b""), start=1):
            if len(line) == MAX_LINE:
                raise UsageError(
                    f"{path}: line {number} is too long; the limit is {MAX_LINE} bytes"
                )
            text = _decoded(path, number, line)
            if text.strip():
                yield number, text.rstrip("\r\n")


def _decoded(path: str, number: int, line: bytes) -> str:
    try:
        return line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: line {number} is not UTF-8") from error


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
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise UsageError(f"cannot read {path}: {reason}") from error
