"""Manifests as streams of bytes, lines, and record batches of one schema."""

import io
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from captioner.jobs.errors import UsageError
from captioner.jobs.storage.filesystems import open_stream
from captioner.jobs.storage.uris import file_name, is_local

BATCH_ROWS = 10_000
MAX_LINE = 16 * 1024 * 1024  # bytes; also what is read of a CSV file at once
Batches = Iterator[pa.RecordBatch]


def _stream(path: str) -> pa.NativeFile:
    compression = "gzip" if file_name(path).lower().endswith(".gz") else None
    source = Path(path).open("rb") if is_local(path) else open_stream(path)  # noqa: SIM115
    if compression and not source.peek(1):  # not an error to pyarrow
        raise UsageError(f"cannot read the manifest {path}: it is empty, which is no gzip file")
    return pa.input_stream(source, compression=compression)


def _arrow_common_type(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    schemas = [pa.schema([("column", kind)]) for kind in (one, other)]
    return pa.unify_schemas(schemas, promote_options="permissive").field(0).type


def conform(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """The columns of a schema, in its types; null where the batch has none."""
    columns = [
        batch.column(field.name).cast(field.type)
        if field.name in batch.schema.names
        else pa.nulls(batch.num_rows, field.type)
        for field in schema
    ]
    return pa.record_batch(columns, schema=schema)


def _lines(path: str) -> Iterator[tuple[int, str]]:
    """The lines that are not blank, without their ends, and their numbers from 1."""
    with io.BufferedReader(_stream(path)) as file:
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
