"""The kinds of manifest, and how each is read: as a stream, in bounded memory, by path or URL.

CSV columns are text, so that "007" survives and the schema does not depend on the rows; an
empty field is null. JSONL values keep their type where a whole column has it, and are JSON text
where not. Parquet columns stay as they are. A text file has an image a line and no other column.
"""

import csv
import io
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow.csv import (
    ConvertOptions,
    CSVStreamingReader,
    ParseOptions,
    ReadOptions,
    open_csv,
)

from jobs.containers import open_parquet
from jobs.errors import UsageError
from jobs.storage import open_stream
from jobs.uris import file_name, is_local
from schemas.image_record import IMAGE_URI

BATCH_ROWS = 10_000
MAX_LINE = 16 * 1024 * 1024  # bytes; also what is read of a CSV file at once
Batches = Iterator[pa.RecordBatch]


@dataclass(frozen=True)
class ManifestKind:
    """How manifests of one kind are read.

    `schema` gives the columns of a file; one without a value has the null type. `common_type`
    gives the type of a column that two files have differently, or raises ArrowException.
    `batches` gives a file's rows in the columns and types of a schema; those that the file does
    not have are null.
    """

    schema: Callable[[str], pa.Schema]
    common_type: Callable[[pa.DataType, pa.DataType], pa.DataType]
    batches: Callable[[str, pa.Schema], Batches]


def manifest_kind(name: str) -> ManifestKind | None:
    """The kind of manifest that a file name tells; None for what is no manifest's name."""
    name = name.lower()
    return next((kind for suffix, kind in _KINDS.items() if name.endswith(suffix)), None)


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


# CSV and TSV


def _csv_schema(path: str) -> pa.Schema:
    # Without threads, which would read far ahead.
    with _closed_quotes(path), _open_csv(path, ConvertOptions(), use_threads=False) as reader:
        return pa.schema([(name, pa.string()) for name in reader.schema.names])


def _csv_batches(path: str, schema: pa.Schema) -> Batches:
    options = ConvertOptions(
        column_types=schema,
        include_columns=schema.names,
        include_missing_columns=True,
        null_values=[""],
        strings_can_be_null=True,
        quoted_strings_can_be_null=False,
    )
    with _closed_quotes(path), _open_csv(path, options) as reader:
        is_checked = False
        for batch in reader:
            if not is_checked and _has_line_breaks(batch):
                _check_quotes(path)
                is_checked = True
            yield batch


@contextmanager
def _closed_quotes(path: str) -> Iterator[None]:
    """What pyarrow cannot read may be a file of one value, from a quotation mark to the end."""
    try:
        yield
    except pa.ArrowInvalid:
        _check_quotes(path)
        raise


def _has_line_breaks(batch: pa.RecordBatch) -> bool:
    found = (pc.match_substring_regex(column, "[\r\n]") for column in batch.columns)
    return any(pc.any(lines).as_py() for lines in found)


def _check_quotes(path: str) -> None:
    """UsageError for a value that opens with a quotation mark and ends without one.

    To pyarrow it is a value that goes on, with all rows up to the next quotation mark. Values of
    several lines may be such, so files that have some are read again, by stricter rules.
    """
    csv.field_size_limit(MAX_LINE)
    start = 1
    with io.TextIOWrapper(io.BufferedReader(_stream(path)), errors="replace", newline="") as text:
        rows = csv.reader(text, delimiter=_delimiter(path), strict=True)
        try:
            for _ in rows:
                start = rows.line_num + 1
        except csv.Error as error:
            raise UsageError(
                f"cannot read the manifest {path}: the row in line {start} has a quotation mark "
                f"that is not closed, or one too many ({error}): inside of a value in quotation "
                "marks it must be doubled"
            ) from error


def _open_csv(path: str, convert: ConvertOptions, use_threads: bool = True) -> CSVStreamingReader:
    return open_csv(
        _stream(path),
        read_options=ReadOptions(use_threads=use_threads, block_size=MAX_LINE),
        parse_options=ParseOptions(delimiter=_delimiter(path), newlines_in_values=True),
        convert_options=convert,
    )


def _delimiter(path: str) -> str:
    return "\t" if file_name(path).lower().endswith((".tsv", ".tsv.gz")) else ","


# Parquet


def _parquet_schema(path: str) -> pa.Schema:
    with open_parquet(path) as file:
        return file.schema_arrow


def _parquet_batches(path: str, schema: pa.Schema) -> Batches:
    # Not by pyarrow.dataset, which decodes whole row groups ahead of their use.
    with open_parquet(path) as file:
        for batch in file.iter_batches(BATCH_ROWS):
            yield conform(batch, schema)


# Text


def _text_schema(_: str) -> pa.Schema:
    return pa.schema([(IMAGE_URI, pa.string())])


def _text_batches(path: str, schema: pa.Schema) -> Batches:
    lines = (line for _, line in _lines(path))
    while part := list(islice(lines, BATCH_ROWS)):
        yield conform(pa.record_batch([part], schema=_text_schema(path)), schema)


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


# JSONL


def _json_schema(path: str) -> pa.Schema:
    types: dict[str, pa.DataType] = {}
    for row in _json_rows(path):
        for name, value in row.items():
            types[name] = _json_common_type(types.get(name, pa.null()), _json_type(value))
    return pa.schema(list(types.items()))


def _json_batches(path: str, schema: pa.Schema) -> Batches:
    rows = _json_rows(path)
    while part := list(islice(rows, BATCH_ROWS)):
        columns = [
            pa.array([_json_value(row.get(field.name), field.type) for row in part], field.type)
            for field in schema
        ]
        yield pa.record_batch(columns, schema=schema)


def _json_rows(path: str) -> Iterator[dict[str, Any]]:
    for number, line in _lines(path):
        yield _json_row(path, number, line)


def _json_row(path: str, number: int, line: str) -> dict[str, Any]:
    try:
        row = _JSON.decode(line)
    except json.JSONDecodeError as error:
        raise UsageError(f"{path}: line {number} is not JSON: {error.msg}") from error
    except KeyError as error:
        raise UsageError(f"{path}: line {number} has several values named {error}") from error
    if not isinstance(row, dict):
        raise UsageError(f"{path}: line {number} is not a JSON object")
    return row


def _json_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object; KeyError for a name that comes twice, of which json would keep the last value."""
    row = dict(pairs)
    if len(row) < len(pairs):
        names = [name for name, _ in pairs]
        raise KeyError(next(name for name in names if names.count(name) > 1))
    return row


_JSON = json.JSONDecoder(object_pairs_hook=_json_object)


def _json_type(value: object) -> pa.DataType:
    """The column type of one value; text for what has no scalar type of its own."""
    if value is None:
        return pa.null()
    if isinstance(value, bool):
        return pa.bool_()
    if isinstance(value, int) and abs(value) < 2**63:
        return pa.int64()
    return pa.float64() if isinstance(value, float) else pa.string()


def _json_common_type(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    if one == other or other == pa.null():
        return one
    if one == pa.null():
        return other
    return pa.float64() if {one, other} == {pa.int64(), pa.float64()} else pa.string()


def _json_value(value: object, kind: pa.DataType) -> object:
    is_text = kind == pa.string() and value is not None and not isinstance(value, str)
    return json.dumps(value, ensure_ascii=False) if is_text else value


_CSV = ManifestKind(_csv_schema, _arrow_common_type, _csv_batches)
_JSONL = ManifestKind(_json_schema, _json_common_type, _json_batches)
PARQUET = ManifestKind(_parquet_schema, _arrow_common_type, _parquet_batches)
TEXT = ManifestKind(_text_schema, _arrow_common_type, _text_batches)
_GZIPPABLE = {".csv": _CSV, ".tsv": _CSV, ".jsonl": _JSONL, ".ndjson": _JSONL, ".txt": TEXT}
_KINDS = {
    **_GZIPPABLE,
    **{f"{suffix}.gz": kind for suffix, kind in _GZIPPABLE.items()},
    ".parquet": PARQUET,
}
MANIFEST_SUFFIXES = tuple(_KINDS)
