"""Manifests of JSON lines."""

import json
from collections.abc import Iterator
from itertools import islice
from typing import Any

import pyarrow as pa

from captioner.jobs.errors import UsageError
from captioner.jobs.sources.manifests.streams import text_lines
from captioner.jobs.sources.source import BATCH_ROWS, Batches


class JsonlFormat:
    """JSON lines as manifests, one object per line.

    Integers and floats become floats; other values whose types differ become JSON text.
    """

    def schema(self, path: str) -> pa.Schema:
        types: dict[str, pa.DataType] = {}
        for row in _rows(path):
            for name, value in row.items():
                types[name] = self.common_type(types.get(name, pa.null()), _type(value))
        return pa.schema(list(types.items()))

    def common_type(self, one: pa.DataType, other: pa.DataType) -> pa.DataType:
        if one == other or other == pa.null():
            return one
        if one == pa.null():
            return other
        return pa.float64() if {one, other} == {pa.int64(), pa.float64()} else pa.string()

    def batches(self, path: str, schema: pa.Schema) -> Batches:
        rows = _rows(path)
        while part := list(islice(rows, BATCH_ROWS)):
            columns = [
                pa.array([_value(row.get(field.name), field.type) for row in part], field.type)
                for field in schema
            ]
            yield pa.record_batch(columns, schema=schema)


def _rows(path: str) -> Iterator[dict[str, Any]]:
    for number, line in text_lines(path):
        yield _row(path, number, line)


def _row(path: str, number: int, line: str) -> dict[str, Any]:
    try:
        row = _JSON.decode(line)
    except json.JSONDecodeError as error:
        raise UsageError(f"{path}: line {number} is not JSON: {error.msg}") from error
    except KeyError as error:
        raise UsageError(f"{path}: line {number} has several values named {error}") from error
    if not isinstance(row, dict):
        raise UsageError(f"{path}: line {number} is not a JSON object")
    return row


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object; KeyError for a repeated name, of which json would keep the last value."""
    row = dict(pairs)
    if len(row) < len(pairs):
        names = [name for name, _ in pairs]
        raise KeyError(next(name for name in names if names.count(name) > 1))
    return row


_JSON = json.JSONDecoder(object_pairs_hook=_object)


def _type(value: object) -> pa.DataType:
    """Return the column type of one value; text for what has no scalar type of its own."""
    if value is None:
        return pa.null()
    if isinstance(value, bool):
        return pa.bool_()
    if isinstance(value, int) and abs(value) < 2**63:
        return pa.int64()
    return pa.float64() if isinstance(value, float) else pa.string()


def _value(value: object, kind: pa.DataType) -> object:
    is_text = kind == pa.string() and value is not None and not isinstance(value, str)
    return json.dumps(value, ensure_ascii=False) if is_text else value
