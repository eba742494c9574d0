"""The index as a SQLite database: its tables, its transactions and its errors.

`images` has a row for each image, with the columns of its row in the table that a condition may
use; names that begin with "captioner." cannot be those of a manifest. `words` is the full text of
the columns `text` and `alternatives`; `pending` notes what it still has of changed images. `files`
are the files of the table that have been read.
"""

import hashlib
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pyarrow as pa

from captioner.jobs.errors import UsageError
from captioner.jobs.publish.sqlite_errors import sqlite_errors
from captioner.jobs.rows.where import quoted
from captioner.jobs.table.layout import OutFolder

APPLICATION = 0x43617074  # "Capt", in the header of the file
VERSION = 1  # of these tables; an index of another version is built again
_HEADER = b"SQLite format 3\0"
WAIT_SECONDS = 120  # for another command that is writing to the index
CACHE_KIB = 256 * 1024
_STEPS = (
    'CREATE TABLE files (number INTEGER PRIMARY KEY, name UNIQUE, version, "rows")',
    "CREATE TABLE state (key PRIMARY KEY, value)",
    """CREATE TABLE images (
        "captioner.id" INTEGER PRIMARY KEY,
        "captioner.file" INTEGER NOT NULL,
        "captioner.marked",
        "captioner.others",
        image_uri UNIQUE, image_sha256, text, decision,
        alternatives AS (CASE WHEN decision IS NULL THEN "captioner.others" END)
    )""",
    'CREATE INDEX images_of_file ON images ("captioner.file")',
    "CREATE INDEX images_by_hash ON images (image_sha256)",
    "CREATE INDEX images_decided ON images (decision) WHERE decision IS NOT NULL",
    """CREATE VIRTUAL TABLE words USING fts5 (
        text, alternatives, content='images', content_rowid='captioner.id',
        tokenize='porter unicode61 remove_diacritics 2'
    )""",
    "CREATE TABLE pending (id INTEGER PRIMARY KEY, is_indexed, text, alternatives)",
    "INSERT INTO words (words, rank) VALUES ('rank', 'bm25(1.0, 0.25)')",
    "INSERT INTO words (words, rank) VALUES ('hashsize', 67108864)",
)
# SQLite would write the full text to disk for every row that a trigger adds, so triggers only note
# what has changed.
_NOTE = """INSERT INTO pending SELECT {row}."captioner.id", {values}
    WHERE NOT EXISTS (SELECT 1 FROM pending WHERE id = {row}."captioner.id")"""
_NOTE_NEW = _NOTE.format(row="new", values="FALSE, NULL, NULL")
_NOTE_OLD = _NOTE.format(row="old", values="TRUE, old.text, old.alternatives")
_DIFFERS = "old.text IS NOT new.text OR old.alternatives IS NOT new.alternatives"
_TRIGGERS = (
    f"CREATE TRIGGER added AFTER INSERT ON images BEGIN {_NOTE_NEW}; END",
    f"CREATE TRIGGER removed AFTER DELETE ON images BEGIN {_NOTE_OLD}; END",
    f"CREATE TRIGGER changed AFTER UPDATE ON images WHEN {_DIFFERS} BEGIN {_NOTE_OLD}; END",
)
_FULL_TEXT = (
    """INSERT INTO words (words, rowid, text, alternatives)
        SELECT 'delete', id, text, alternatives FROM pending WHERE is_indexed""",
    """INSERT INTO words (rowid, text, alternatives)
        SELECT pending.id, images.text, images.alternatives
        FROM pending JOIN images ON images."captioner.id" = pending.id""",
    "DELETE FROM pending",
)


def index_path(out: OutFolder, given: Path | None = None) -> Path:
    """Return the file of the index: the given one, or in OUT or, for a store, in the user's cache.

    The folder of a cached index is made.
    """
    if given is not None:
        return given
    if local := out.storage.local_path(out.index):
        return local
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "captioner"
    cache.mkdir(parents=True, exist_ok=True)
    return cache / f"{hashlib.sha256(str(out.root).encode()).hexdigest()[:32]}.sqlite"


@contextmanager
def opened(path: Path) -> Iterator[sqlite3.Connection]:
    """Open the index, or create an empty file; raise UsageError if it cannot be one.

    TemporaryError while another command writes to it for longer than WAIT_SECONDS.
    """
    remedies = {
        "damaged": "remove it, and index the table again",
        "refused": "give another file as --index",
    }
    _check_header(path)
    with (
        sqlite_errors(path, **remedies),
        closing(sqlite3.connect(path, WAIT_SECONDS, isolation_level=None)) as database,
    ):
        _check_kind(database, path)
        database.execute("PRAGMA case_sensitive_like = ON")
        database.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        yield database


def _check_header(path: Path) -> None:
    """Raise UsageError for a file that is no database: it may be a photograph."""
    try:
        with path.open("rb") as file:
            header = file.read(len(_HEADER))
    except OSError:  # SQLite says what is wrong, or makes the file
        return
    if header not in (b"", _HEADER):
        raise UsageError(f"{path} is not an index: give another file as --index, or remove it")


@contextmanager
def transaction(database: sqlite3.Connection) -> Iterator[None]:
    """Change the index whole or not at all, alone; a killed process leaves it as it was."""
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
        for step in _FULL_TEXT:
            database.execute(step)
        database.execute("COMMIT")
    except BaseException:
        if database.in_transaction:  # SQLite itself ends it if the disk is full
            database.execute("ROLLBACK")
        raise


def is_current(database: sqlite3.Connection) -> bool:
    """Return whether the index has the tables of this version."""
    return _pragma(database, "user_version") == VERSION


def make_tables(database: sqlite3.Connection) -> None:
    """Make empty tables, after dropping those that exist."""
    tables = "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name = 'words' DESC"
    for (name,) in database.execute(tables).fetchall():
        database.execute(f"DROP TABLE IF EXISTS {quoted(name)}")
    for step in (*_STEPS, *_TRIGGERS):
        database.execute(step)
    database.execute(f"PRAGMA application_id = {APPLICATION}")
    database.execute(f"PRAGMA user_version = {VERSION}")


def read_state(database: sqlite3.Connection, key: str) -> bytes | None:
    """Return a value that `write_state` saved; None if there is none."""
    found = database.execute("SELECT value FROM state WHERE key = ?", (key,)).fetchone()
    return bytes(found[0]) if found else None


def write_state(database: sqlite3.Connection, key: str, value: bytes) -> None:
    """Save a value."""
    database.execute("INSERT OR REPLACE INTO state VALUES (?, ?)", (key, value))


def indexed_schema(database: sqlite3.Connection) -> pa.Schema:
    """Return the columns of `images` that conditions may use."""
    saved = read_state(database, "schema")
    return pa.ipc.read_schema(pa.py_buffer(saved)) if saved else pa.schema([])


def _pragma(database: sqlite3.Connection, name: str) -> int:
    return int(database.execute(f"PRAGMA {name}").fetchone()[0])


def _check_kind(database: sqlite3.Connection, path: Path) -> None:
    is_empty = database.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)
    if not is_empty and _pragma(database, "application_id") != APPLICATION:
        raise UsageError(f"{path} is a database of something else: give another file as --index")
