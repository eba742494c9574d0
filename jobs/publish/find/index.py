"""Build and update the index: read only the files of the table that have changed, and reviews."""

import hashlib
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
from tqdm import tqdm

from captioner.jobs.publish.find.database import (
    indexed_schema,
    is_current,
    make_tables,
    opened,
    read_state,
    transaction,
    write_state,
)
from captioner.jobs.publish.find.entries import Entries, searchable
from captioner.jobs.publish.find.reviewed import apply_decisions
from captioner.jobs.rows.decided import plain_rows, row_schema
from captioner.jobs.rows.where import quoted
from captioner.jobs.table.layout import OutFolder
from captioner.jobs.table.read import opened_files
from captioner.jobs.table.reviews import Decisions, decisions

_SUPERSEDED = """SELECT name FROM files
    WHERE "rows" > (SELECT count(*) FROM images WHERE "captioner.file" = number)"""
_OF_NO_FILE = 'DELETE FROM images WHERE "captioner.file" NOT IN (SELECT number FROM files)'


@dataclass(frozen=True)
class IndexUpdate:
    """The result of an update: images in the index, files read, rows read, and bytes."""

    index: str
    images: int
    files_read: int
    rows_read: int
    bytes: int


@dataclass(frozen=True)
class _Present:
    """What OUT holds now: the versions of the table's files, by name, and of all reviews."""

    files: Mapping[str, str]
    reviews: bytes

    @classmethod
    def of(cls, out: OutFolder) -> "_Present":
        reviews = out.storage.versions(out.reviews, "*.jsonl")
        digest = hashlib.sha256(repr(sorted(reviews.items())).encode()).digest()
        return cls(out.storage.versions(out.captions, "*.parquet"), digest)


def update_index(out: OutFolder, path: Path, *, quiet: bool = False) -> IndexUpdate:
    """Bring the index in `path` up to date with OUT, or build it; whole or not at all.

    If nothing has changed, that takes one listing. Any number of commands may do it at once. Raise
    UsageError without a table, for a foreign file, or if the index cannot be written.
    """
    out.require_table()
    with opened(path) as database:
        read: Sequence[int] = ()
        if not is_up_to_date(database, out):
            with transaction(database):
                read = _Update(database, out, quiet).run()
        (images,) = database.execute("SELECT count(*) FROM images").fetchone()
    return IndexUpdate(str(path), images, len(read), sum(read), path.stat().st_size)


def is_up_to_date(database: sqlite3.Connection, out: OutFolder) -> bool:
    """Return whether an index has all that OUT holds now."""
    present = _Present.of(out)
    if not is_current(database):
        return False
    known = dict(database.execute("SELECT name, version FROM files"))
    return known == present.files and read_state(database, "reviews") == present.reviews


class _Update:
    """An update, within a transaction, so that what OUT holds is listed by one command at a time.

    A file that changes after it was listed is read again by the next update.
    """

    def __init__(self, database: sqlite3.Connection, out: OutFolder, quiet: bool) -> None:
        self.database, self.out, self.quiet = database, out, quiet
        self.present = _Present.of(out)

    def run(self) -> Sequence[int]:
        """Update the index; return the rows of each file that was read."""
        if not is_current(self.database):
            make_tables(self.database)
        changed = self._changed_files()
        try:
            schema = self._add_columns(changed)
        except pa.ArrowException:  # a column has another type now
            make_tables(self.database)
            changed = list(self.present.files)
            schema = self._add_columns(changed)
        in_force = decisions(self.out)
        self._forget_files(changed)
        read = self._read(changed, schema, in_force)
        self.database.execute(_OF_NO_FILE)
        if read_state(self.database, "reviews") != self.present.reviews:
            apply_decisions(self.database, in_force)
            write_state(self.database, "reviews", self.present.reviews)
        return read

    def _changed_files(self) -> list[str]:
        """Return the names of files to read.

        If any file is new, changed or gone, files with superseded rows are among them: a row that
        superseded one of theirs may be gone.
        """
        known = dict(self.database.execute("SELECT name, version FROM files"))
        if known == self.present.files:
            return []
        superseded = {name for (name,) in self.database.execute(_SUPERSEDED)}
        files = self.present.files.items()
        return [name for name, v in files if known.get(name) != v or name in superseded]

    def _add_columns(self, changed: Sequence[str]) -> pa.Schema:
        """Add the columns of files; return all. Raise ArrowException if types differ."""
        known = indexed_schema(self.database)
        found = searchable(row_schema(self.out, [self.out.captions / name for name in changed]))
        merged = searchable(pa.unify_schemas([known, found]))
        there = {name for _, name, *_ in self.database.execute("PRAGMA table_xinfo(images)")}
        for name in merged.names:
            if name not in there:
                self.database.execute(f"ALTER TABLE images ADD COLUMN {quoted(name)}")
        write_state(self.database, "schema", merged.serialize().to_pybytes())
        return merged

    def _forget_files(self, changed: Sequence[str]) -> None:
        """Forget files that are gone or will be read again, but not yet their images."""
        kept = {*self.present.files}.difference(changed)
        known = self.database.execute("SELECT name FROM files").fetchall()
        gone = [(name,) for (name,) in known if name not in kept]
        self.database.executemany("DELETE FROM files WHERE name = ?", gone)

    def _read(self, names: Sequence[str], schema: pa.Schema, in_force: Decisions) -> list[int]:
        entries = Entries(self.database, schema, in_force)
        paths = tqdm(
            [self.out.captions / name for name in names],
            "indexing", unit=" files", delay=1, disable=True if self.quiet else None,
        )  # fmt: skip
        read = []
        for path, file in opened_files(paths):
            number = self._new_number()
            rows = sum(entries.add(rows, number) for rows in plain_rows(path, file, entries.table))
            values = (number, path.name, self.present.files[path.name], rows)
            self.database.execute("INSERT INTO files VALUES (?, ?, ?, ?)", values)
            read.append(rows)
        return read

    def _new_number(self) -> int:
        """Return a number for a file that no image has."""
        sql = """SELECT 1 + max(ifnull((SELECT max(number) FROM files), 0),
            ifnull((SELECT max("captioner.file") FROM images), 0))"""
        return int(self.database.execute(sql).fetchone()[0])
