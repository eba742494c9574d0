"""What was exported, so that a former export of ours can be told from a person's text.

`OUT/exports/<format>.sqlite` has a mark for each place that an export wrote to: a digest of what it
wrote. Text whose mark is not there is a person's. Without the file, every text is.
"""

import hashlib
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from captioner.jobs.publish.sqlite_errors import sqlite_errors
from captioner.jobs.table.exclusive_writer import usage_errors
from captioner.jobs.table.layout import OutFolder

_TABLE = "CREATE TABLE IF NOT EXISTS exported (place BLOB PRIMARY KEY, mark TEXT, former TEXT)"
_DAMAGED = "move it away; every text that was exported then counts as a person's"
_REFUSED = "make the file and its folder writable"


def mark_of(content: str | bytes) -> str:
    """Return the mark of a text or a file."""
    data = content.encode() if isinstance(content, str) else content
    return hashlib.sha256(data).hexdigest()


@dataclass(frozen=True)
class Mark:
    """The mark that a place is going to have, and the mark that it has, None if not ours."""

    place: str
    mark: str
    former: str | None = None


class Record:
    """The marks of all places of a format; one process holds it at a time."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database

    @property
    def has_changed(self) -> bool:
        return self._database.total_changes > 0

    def marks(self, place: str) -> list[str]:
        """Return what may be at a place if it is ours; two marks after an interrupted export."""
        query = "SELECT mark, former FROM exported WHERE place = ?"
        row = self._database.execute(query, (os.fsencode(place),)).fetchone()
        return [mark for mark in row or () if mark is not None]

    def places(self, folder: str) -> list[str]:
        """Return the places below a folder, sorted."""
        query = "SELECT place FROM exported WHERE place >= ? AND place < ? ORDER BY place"
        ends = (os.fsencode(f"{folder}/"), os.fsencode(f"{folder}0"))
        return [os.fsdecode(place) for (place,) in self._database.execute(query, ends)]

    @contextmanager
    def writing(self, marks: Sequence[Mark]) -> Iterator[None]:
        """Record marks, durably, before the places are written; until then the former hold too."""
        rows = [(os.fsencode(each.place), each.mark, each.former) for each in marks]
        with self._database:
            self._database.executemany("INSERT OR REPLACE INTO exported VALUES (?, ?, ?)", rows)
        yield
        with self._database:
            places = [(os.fsencode(each.place),) for each in marks]
            query = "UPDATE exported SET former = NULL WHERE place = ?"
            self._database.executemany(query, places)


@contextmanager
def opened_record(out: OutFolder, name: str | None, *, dry_run: bool) -> Iterator[Record]:
    """Open the record of a format in OUT, alone if OUT is a folder of this machine.

    On a store it is a copy, which is put back in the end even if the export fails. Without a name,
    the record is empty and kept nowhere. Raise TemporaryError while another export uses it, and
    UsageError if it is damaged or cannot be written.
    """
    if name is None:
        with _opened(":memory:") as record:
            yield record
        return
    storage, path = out.storage, out.exports / f"{name}.sqlite"
    if local := storage.local_path(path):
        if not dry_run:
            with usage_errors(out):
                local.parent.mkdir(parents=True, exist_ok=True)
        with _opened(":memory:" if dry_run and not local.exists() else local) as record:
            yield record
        return
    with storage.work_folder(out.exports) as folder:
        copy = folder / path.name
        if storage.exists(path):
            storage.get(path, copy)
        with _opened(copy, path) as record:
            try:
                yield record
            finally:
                if record.has_changed:
                    storage.put(copy, path)


@contextmanager
def _opened(file: Path | str, path: object = None) -> Iterator[Record]:
    """Open a record, which errors name as `path`, and hold it until the end."""
    with (
        sqlite_errors(path or file, damaged=_DAMAGED, refused=_REFUSED),
        closing(sqlite3.connect(file, timeout=0)) as database,
    ):
        database.execute("PRAGMA locking_mode = EXCLUSIVE")
        database.execute("BEGIN EXCLUSIVE")
        database.execute(_TABLE)
        database.commit()
        yield Record(database)
