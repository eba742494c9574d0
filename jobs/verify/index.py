"""The index of the table, and the records of exports: whole SQLite databases that fit the table."""

import sqlite3
from contextlib import closing
from pathlib import Path

from captioner.jobs.errors import JobError, TemporaryError
from captioner.jobs.publish.find.database import index_path, opened
from captioner.jobs.publish.find.index import is_up_to_date
from captioner.jobs.publish.sqlite_errors import sqlite_errors
from captioner.jobs.storage.backends.paths import OutPath
from captioner.jobs.verify.findings import Kind, Scope

_REMEDY = "remove it, and `captioner index` builds it again; --repair renames it"
_STALE = "the next `captioner search` or `captioner index` brings it up to date"
_EXPORT = "restore it from a copy; without it, the next export knows of none before"


def check_index(scope: Scope, images: int) -> None:
    """Find an index that is damaged or that, although up to date, has other images."""
    path = index_path(scope.out)
    if not path.exists():
        return
    try:
        with opened(path) as database:
            _check(scope, path, database, images)
    except TemporaryError:
        scope.harmless(Kind.INDEX, path, "is in use by another command", "verify it again later")
    except JobError as error:
        scope.fault(Kind.INDEX, path, f"is damaged ({error})", _REMEDY)


def _check(scope: Scope, path: Path, database: sqlite3.Connection, images: int) -> None:
    if problem := _problem(database):
        scope.fault(Kind.INDEX, path, f"is damaged ({problem})", _REMEDY)
    elif not is_up_to_date(database, scope.out):
        scope.harmless(Kind.INDEX, path, "is older than the table or the reviews", _STALE)
    else:
        (indexed,) = database.execute("SELECT count(*) FROM images").fetchone()
        if indexed != images:
            what = f"has {indexed:,} images, the table {images:,}"
            scope.fault(Kind.INDEX, path, what, _REMEDY)


def _problem(database: sqlite3.Connection) -> str | None:
    (answer,) = database.execute("PRAGMA integrity_check(1)").fetchone()
    return None if answer == "ok" else str(answer).replace("\n", " ")


def check_exports(scope: Scope) -> None:
    """Find records of exports, in a local OUT, that are damaged."""
    out = scope.out
    for path in out.storage.files(out.exports, "*.sqlite"):
        if local := out.storage.local_path(path):
            _check_export(scope, path, local)


def _check_export(scope: Scope, path: OutPath, local: Path) -> None:
    try:
        with (
            sqlite_errors(local, damaged=_EXPORT, refused=_EXPORT),
            closing(sqlite3.connect(f"{local.as_uri()}?mode=ro", uri=True)) as database,
        ):
            problem = _problem(database)
    except TemporaryError:
        problem = None  # an export is at work
    except JobError as error:
        problem = str(error)
    if problem:
        scope.fault(Kind.INDEX, path, f"is damaged ({problem})", _EXPORT)
