"""Manifests of JSON lines."""

import json
from collections import Counter
from typing import Any

import pyarrow as pa

from captioner.jobs.errors import UsageError
from captioner.jobs.sources.manifests.streams import MAX_COLUMNS, in_batches, text_lines
from captioner.jobs.sources.source import Batches
from captioner.schemas.image_record import IMAGE_URI

Row = dict[str, Any]  # a line of JSON


class JsonlFormat:
    """JSON lines as manifests, one object per line.

    Integers and floats become floats; other values whose types differ become JSON text. What is no
    text in Unicode becomes U+FFFD, but is an error in the `uri_column`.
    """

    def __init__(self, uri_column: str = IMAGE_URI) -> None:
        self._uri_column = uri_column

    def schema(self, path: str) -> pa.Schema:
        types: dict[str, pa.DataType] = {}
        number = 0
        for number, line in text_lines(path):
            for name, value in _row(path, number, line).items():
                types[name] = self.common_type(types.get(name, pa.null()), _type(value))
            if len(types) > MAX_COLUMNS:
                raise UsageError(
                    f"{path}: up to line {number}, objects have {len(types)} different names, and "
                    f"the limit is {MAX_COLUMNS}"
                )
        if not number:  # an export of nothing
            return pa.schema([(self._uri_column, pa.string())])
        return pa.schema(list(types.items()))

    def common_type(self, one: pa.DataType, other: pa.DataType) -> pa.DataType:
        if one == other or other == pa.null():
            return one
        if one == pa.null():
            return other
        return pa.float64() if {one, other} == {pa.int64(), pa.float64()} else pa.string()

    def batches(self, path: str, schema: pa.Schema) -> Batches:
        for lines in in_batches(text_lines(path)):
            rows = [_row(path, number, line) for number, line in lines]
            numbers = [number for number, _ in lines]
            self._check_uris(path, numbers, rows)
            columns = [_column(path, numbers, rows, field) for field in schema]
            yield pa.record_batch(columns, schema=schema)

    def _check_uris(self, path: str, numbers: list[int], rows: list[Row]) -> None:
        for number, row in zip(numbers, rows, strict=True):
            uri = row.get(self._uri_column)
            if isinstance(uri, str) and not _is_unicode(uri):
                raise UsageError(
                    f"{path}: the {self._uri_column} in line {number} has half a character: {uri!a}"
                )


def _row(path: str, number: int, line: str) -> Row:
    try:
        row = _JSON.decode(line)
    except json.JSONDecodeError as error:
        raise UsageError(f"{path}: line {number} is not JSON: {error.msg}") from error
    except KeyError as error:
        raise UsageError(f"{path}: line {number} has several values named {error}") from error
    except RecursionError as error:
        raise UsageError(f"{path}: line {number} is nested too deeply") from error
    except ValueError as error:  # of int()
        raise UsageError(f"{path}: line {number} has a number of too many digits") from error
    if not isinstance(row, dict):
        raise UsageError(f"{path}: line {number} is not a JSON object")
    return row


def _object(pairs: list[tuple[str, Any]]) -> Row:
    """Return an object; KeyError for a repeated name, whose last value json would keep."""
    row = {_unicode(name): value for name, value in pairs}
    if len(row) < len(pairs):
        (name, _), *_ = Counter(_unicode(name) for name, _ in pairs).most_common(1)
        raise KeyError(name)
    return row


_JSON = json.JSONDecoder(object_pairs_hook=_object)


def _type(value: object) -> pa.DataType:
    """Return the column type of one value; text for what has no scalar type of its own."""
    if value is None:
        return pa.null()
    if isinstance(value, bool):
        return pa.bool_()
    if isinstance(value, int) and -(2**63) <= value < 2**63:
        return pa.int64()
    return pa.float64() if isinstance(value, float) else pa.string()


def _column(path: str, numbers: list[int], rows: list[Row], field: pa.Field) -> pa.Array:
    try:
        values = [_value(row.get(field.name), field.type) for row in rows]
        return pa.array(values, field.type)
    except (pa.ArrowException, RecursionError) as error:
        if len(rows) > 1:
            parts = zip(numbers, rows, strict=True)
            return pa.concat_arrays([_column(path, [n], [row], field) for n, row in parts])
        raise UsageError(
            f"{path}: the value of {field.name} in line {numbers[0]} cannot be kept, "
            f"so write it as text, or leave it out: {error}"
        ) from error


def _value(value: object, kind: pa.DataType) -> object:
    if kind != pa.string() or value is None:
        return value
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return _unicode(text)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _unicode(text: str) -> str:
    """Return a text with U+FFFD for each half of a character that JSON may escape."""
    if text.isascii() or _is_unicode(text):
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
