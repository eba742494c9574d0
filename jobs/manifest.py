"""Manifests: files that list images in a column `image_uri`, with columns of their own.

CSV columns are text, so that "007" survives and the schema does not depend on the rows; an
empty field is null. JSONL values keep their type where a whole column has it, and are JSON text
where not. Parquet columns stay as they are.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import csv

from jobs.errors import UsageError
from jobs.uris import image_uri, image_version
from schemas.caption_table import passthrough_names
from schemas.image_record import IMAGE_URI, plan_schema

BATCH_ROWS = 10_000
CSV_BLOCK = 16 * 1024 * 1024  # bytes; no line can be longer
Batches = Iterator[pa.RecordBatch]
T = TypeVar("T")


def manifest_records(path: Path) -> tuple[pa.Schema, Batches]:
    """The schema and the batches of a manifest's records, in a plan's columns.

    Relative paths become absolute, from the manifest's folder; versions are looked up. UsageError
    for a manifest that cannot be read, lacks `image_uri`, or names no image in some row.
    """
    schema, batches = _readable(path, lambda: _READERS[path.suffix.lower()](path))
    _check_columns(path, schema)
    own = [field for field in schema if field.name != IMAGE_URI]
    names = passthrough_names([field.name for field in own])
    renamed = [field.with_name(name) for field, name in zip(own, names, strict=True)]
    target = plan_schema(pa.schema(renamed))
    return target, _records(path, batches, target)


def _check_columns(path: Path, schema: pa.Schema) -> None:
    if IMAGE_URI not in schema.names:
        found = ", ".join(schema.names)
        raise UsageError(f"{path} has no column {IMAGE_URI}; its columns are: {found}")
    repeated = sorted({name for name in schema.names if schema.names.count(name) > 1})
    if repeated:
        raise UsageError(f"{path} has several columns named {', '.join(repeated)}")
    kind = schema.field(IMAGE_URI).type
    text = kind.value_type if pa.types.is_dictionary(kind) else kind
    if not (pa.types.is_string(text) or pa.types.is_large_string(text)):
        raise UsageError(f"{path}: the column {IMAGE_URI} must hold text, not {kind}")


def _records(path: Path, batches: Batches, schema: pa.Schema) -> Batches:
    folder = str(path.absolute().parent)
    row = 1
    while (batch := _readable(path, lambda: next(batches, None))) is not None:
        names = batch.column(IMAGE_URI).cast(pa.string())
        _check_named(path, names, row)
        uris = [image_uri(name, folder) for name in names.to_pylist()]
        versions = pa.array([image_version(uri) for uri in uris], pa.string())
        own = batch.drop_columns([IMAGE_URI]).columns
        yield pa.record_batch([pa.array(uris, pa.string()), versions, *own], schema=schema)
        row += batch.num_rows


def _check_named(path: Path, names: pa.Array, first_row: int) -> None:
    empty = pc.index(pc.fill_null(names, ""), "").as_py()
    if empty >= 0:
        raise UsageError(f"{path}: row {first_row + empty} has no {IMAGE_URI}")


def _readable(path: Path, read: Callable[[], T]) -> T:
    try:
        return read()
    except (OSError, pa.ArrowException, UnicodeError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"cannot read the manifest {path}: {reason}") from error


def _read_csv(path: Path) -> tuple[pa.Schema, Batches]:
    names = _open_csv(path, csv.ConvertOptions()).schema.names
    reader = _open_csv(
        path,
        csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()),
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        ),
    )
    return reader.schema, iter(reader)


def _open_csv(path: Path, convert: csv.ConvertOptions) -> csv.CSVStreamingReader:
    return csv.open_csv(
        path,
        read_options=csv.ReadOptions(block_size=CSV_BLOCK),
        parse_options=csv.ParseOptions(newlines_in_values=True),
        convert_options=convert,
    )


def _read_parquet(path: Path) -> tuple[pa.Schema, Batches]:
    file = pq.ParquetFile(path)
    return file.schema_arrow.remove_metadata(), file.iter_batches(BATCH_ROWS)


def _read_jsonl(path: Path) -> tuple[pa.Schema, Batches]:
    types: dict[str, pa.DataType] = {}
    for row in _json_rows(path):
        for name, value in row.items():
            types[name] = _common_type(types.get(name, pa.null()), _json_type(value))
    fields = [(name, pa.string() if kind == pa.null() else kind) for name, kind in types.items()]
    schema = pa.schema(fields)
    return schema, _json_batches(_json_rows(path), schema)


def _json_rows(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield _json_row(path, number, line)


def _json_row(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise UsageError(f"{path}: line {number} is not JSON: {error.msg}") from error
    if not isinstance(row, dict):
        raise UsageError(f"{path}: line {number} is not a JSON object")
    return row


def _json_batches(rows: Iterable[dict[str, Any]], schema: pa.Schema) -> Batches:
    rows = iter(rows)
    while part := list(islice(rows, BATCH_ROWS)):
        columns = [
            pa.array([_json_value(row.get(field.name), field.type) for row in part], field.type)
            for field in schema
        ]
        yield pa.record_batch(columns, schema=schema)


def _json_type(value: object) -> pa.DataType:
    """The column type of one value; text for what has no scalar type of its own."""
    if value is None:
        return pa.null()
    if isinstance(value, bool):
        return pa.bool_()
    if isinstance(value, int) and abs(value) < 2**63:
        return pa.int64()
    return pa.float64() if isinstance(value, float) else pa.string()


def _common_type(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    if one == other or other == pa.null():
        return one
    if one == pa.null():
        return other
    return pa.float64() if {one, other} == {pa.int64(), pa.float64()} else pa.string()


def _json_value(value: object, kind: pa.DataType) -> object:
    is_text = kind == pa.string() and value is not None and not isinstance(value, str)
    return json.dumps(value, ensure_ascii=False) if is_text else value


_READERS: dict[str, Callable[[Path], tuple[pa.Schema, Batches]]] = {
    ".csv": _read_csv,
    ".jsonl": _read_jsonl,
    ".parquet": _read_parquet,
}
MANIFEST_SUFFIXES = tuple(_READERS)
