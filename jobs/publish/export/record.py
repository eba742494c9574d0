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

from captioner.jobs.errors import TemporaryError, UsageError
from captioner.jobs.table.layout import OutFolder

_TABLE = "CREATE TABLE IF NOT EXISTS exported (place BLOB PRIMARY KEY, mark TEXT, former TEXT)"


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
    """Open the record of a format in OUT; TemporaryError while another export uses it.

    On a store it is a copy, which is put back in the end even if the export fails. Without a name,
    the record is empty and kept nowhere.
    """
    if name is None:
        with _opened(":memory:") as record:
            yield record
        return
    storage, path = out.storage, out.exports / f"{name}.sqlite"
    if local := storage.local_path(path):
        with _opened(":memory:" if dry_run and not local.exists() else local) as record:
            yield record
        return
    with storage.work_folder(out.exports) as folder:
        copy = folder / path.name
        if storage.exists(path):
            storage.get(path, copy)
        before = copy.read_bytes() if copy.exists() else b""
        try:
            with _opened(copy) as record:
                yield record
        finally:
            if not dry_run and copy.read_bytes() != before:
                storage.put(copy, path)


@contextmanager
def _opened(path: Path | str) -> Iterator[Record]:
    if isinstance(path, Path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(path, timeout=0)) as database:
        _hold(database, path)
        yield Record(database)


def _hold(database: sqlite3.Connection, path: Path | str) -> None:
    """Lock a record for as long as it is open."""
    try:
        database.execute("PRAGMA locking_mode = EXCLUSIVE")
        database.execute("BEGIN EXCLUSIVE")
        database.execute(_TABLE)
        database.commit()
    except sqlite3.OperationalError as error:
        raise TemporaryError(f"{path} is used by another export ({error}): try again") from error
    except sqlite3.DatabaseError as error:
        raise UsageError(f"{path} is not a record of exports ({error}): move it away") from error
