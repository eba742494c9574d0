"""Rows of the table as entries of the index: values that SQLite takes, and words to find."""

import sqlite3
from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from captioner.jobs.rows.decided import DECIDED, decided
from captioner.jobs.rows.where import quoted
from captioner.jobs.table.reviews import Decisions

_OWN = ("captioner.file", "captioner.marked", "captioner.others")
_ALTERNATIVES = "alternatives"
# A later row wins, and any row over one whose file is gone.
_WINS = """excluded.annotated_at >= images.annotated_at
    OR images."captioner.file" NOT IN (SELECT number FROM files)"""


def searchable(schema: pa.Schema) -> pa.Schema:
    """Return the columns that SQLite can hold: no lists, and of names that differ in case, one."""
    found: dict[str, pa.Field] = {}
    for field in schema:
        if not (pa.types.is_nested(field.type) or pa.types.is_duration(field.type)):
            found.setdefault(field.name.lower(), field)
    return pa.schema(list(found.values()))


class Entries:
    """The entries of the index, as rows of the table are added to it."""

    def __init__(
        self, database: sqlite3.Connection, schema: pa.Schema, in_force: Decisions
    ) -> None:
        self._database, self._columns, self._in_force = database, schema.names, in_force
        alternatives = pa.field(_ALTERNATIVES, pa.list_(pa.struct([("caption", pa.string())])))
        plain = [field for field in schema if field.name not in DECIDED.names]
        self.table = pa.schema([*plain, alternatives])  # the columns that `add` needs
        self._sql = _upsert([*_OWN, *self._columns])

    def add(self, rows: pa.Table, file: int) -> int:
        """Add rows of a file, given by its number; return how many."""
        current = decided(rows, self._in_force)
        own = [[file] * len(rows), rows["needs_review"].to_pylist(), [*_other_words(rows)]]
        columns = [_values(current[name]) for name in self._columns]
        self._database.executemany(self._sql, zip(*own, *columns, strict=True))
        return len(rows)


def _upsert(names: Sequence[str]) -> str:
    columns = ", ".join(map(quoted, names))
    updates = ", ".join(f"{quoted(name)} = excluded.{quoted(name)}" for name in names)
    values = ", ".join("?" * len(names))
    return (
        f"INSERT INTO images ({columns}) VALUES ({values}) "
        f"ON CONFLICT (image_uri) DO UPDATE SET {updates} WHERE {_WINS}"
    )


def _values(column: pa.ChunkedArray) -> list[object]:
    """Return the values of a column, times as conditions have them (where.py)."""
    kind = column.type
    if pa.types.is_temporal(kind):
        column = column.cast(pa.string())
    elif pa.types.is_decimal(kind) or kind == pa.uint64():
        column = column.cast(pa.float64(), safe=False)
    return column.to_pylist()


def _other_words(rows: pa.Table) -> Iterator[str]:
    """Yield the words that the alternatives of each row have and its caption lacks."""
    alternatives = rows[_ALTERNATIVES].combine_chunks()
    captions = pc.struct_field(alternatives.values, "caption")
    joined = pc.binary_join(pa.ListArray.from_arrays(alternatives.offsets, captions), " ")
    for text, others in zip(_words(rows["caption"]), _words(joined), strict=True):
        known = set(text)
        yield " ".join(dict.fromkeys(word for word in others if word not in known))


def _words(texts: pa.ChunkedArray | pa.Array) -> Iterator[list[str]]:
    """Yield the words of each text, roughly: SQLite's tokenizer has the last word."""
    plain = pc.replace_substring(pc.utf8_lower(texts.fill_null("")), ".", "")
    return map(str.split, plain.to_pylist())
