"""What a failure of a SQLite file means for a command."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from captioner.jobs.errors import JobError, TemporaryError, UsageError
from captioner.jobs.publish.sqlite_errors import sqlite_errors


def change(path: Path, *before: str, uri: str = "") -> None:
    """Add much to a database that may say no."""
    with (
        sqlite_errors(path, damaged="remove it", refused="give another"),
        closing(sqlite3.connect(uri or path, timeout=0, uri=bool(uri))) as database,
    ):
        for statement in before:
            database.execute(statement)
        database.execute("INSERT INTO notes VALUES (randomblob(100000))")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with closing(sqlite3.connect(tmp_path / "a.sqlite")) as database:
        database.execute("CREATE TABLE notes (note)")
    return tmp_path / "a.sqlite"


def test_only_a_file_in_use_is_worth_another_attempt(path: Path) -> None:
    with closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(TemporaryError, match="another command is using"):
            change(path)
    change(path)


def test_a_file_that_may_not_be_written_is_a_usage_error(path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot write to .*readonly.*: give another"):
        change(path, uri=f"file:{path}?mode=ro")
    with pytest.raises(UsageError, match=r"cannot write to .*unable to open.*: give another"):
        change(path.parent / "missing" / "a.sqlite")


def test_a_damaged_file_has_its_remedy(path: Path) -> None:
    path.write_bytes(b"no database" * 100)
    with pytest.raises(UsageError, match=r"is damaged .*: remove it"):
        change(path)


def test_a_full_disk_is_no_temporary_error(path: Path) -> None:
    with pytest.raises(JobError, match=r"disk is full.*: make room") as raised:
        change(path, "PRAGMA max_page_count = 2")
    assert not isinstance(raised.value, TemporaryError | UsageError)
