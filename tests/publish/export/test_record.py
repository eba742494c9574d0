"""The record of what was exported: in use, damaged, lost."""

from collections.abc import Callable
from pathlib import Path

import pytest

from captioner.jobs.errors import TemporaryError, UsageError
from captioner.jobs.publish.export.export import export
from captioner.jobs.publish.export.job import ExportJob
from captioner.jobs.table.layout import OutFolder
from tests.support.exports import exported, state
from tests.support.rows import decide, row, write_rows


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    return tmp_path / "photos"


def table(photos: Path, *names: str) -> OutFolder:
    return write_rows(photos.parent / "out", [row(str(photos / f"{name}.jpg")) for name in names])


def test_two_exports_of_one_format_exclude_each_other(photos: Path) -> None:
    out = table(photos, "a", "b")
    first = export(ExportJob(out, "txt", where="status = 'ok'", max_characters=1))
    next(first)
    with pytest.raises(TemporaryError, match=r"another command is using .*txt\.sqlite"):
        exported(out, "txt")
    first.close()
    assert exported(out, "txt") == {"write": 2}


def spoil_all(record: Path) -> None:
    record.write_bytes(b"no database, but a long text" * 100)


def spoil_marks(record: Path) -> None:
    """Overwrite all pages but the first, which says what the tables are."""
    content = record.read_bytes()
    record.write_bytes(content[:4096] + b"garbage!" * (len(content[4096:]) // 8))


def cut(record: Path) -> None:
    record.write_bytes(record.read_bytes()[:5000])


@pytest.mark.parametrize("spoil", [spoil_all, spoil_marks, cut])
def test_nothing_is_written_while_the_record_is_damaged(
    photos: Path, spoil: Callable[[Path], None]
) -> None:
    out = table(photos, "a")
    exported(out, "txt")
    (photos / "a.txt").write_text("Mine.")
    decide(out, str(photos / "a.jpg"), "edited", "A dog.")
    spoil(out.exports / "txt.sqlite")
    before = state(photos)
    for dry_run in (False, True):
        with pytest.raises(UsageError, match=r"txt\.sqlite is damaged .*: move it away"):
            exported(out, "txt", dry_run=dry_run)
    assert state(photos) == before
    (out.exports / "txt.sqlite").unlink()
    assert exported(out, "txt") == {"keep": 1}


def test_a_text_whose_record_is_empty_is_a_persons(photos: Path) -> None:
    out = table(photos, "a")
    exported(out, "txt")
    decide(out, str(photos / "a.jpg"), "edited", "A dog.")
    (out.exports / "txt.sqlite").write_bytes(b"")
    assert exported(out, "txt") == {"keep": 1}


def test_a_record_that_cannot_be_opened_is_a_usage_error(photos: Path) -> None:
    out = table(photos, "a")
    (out.exports / "txt.sqlite").mkdir(parents=True)
    with pytest.raises(UsageError, match=r"cannot write to .*: make the file and its folder"):
        exported(out, "txt")
    (out.exports / "txt.sqlite").rmdir()
    out.exports.rmdir()
    out.exports.write_text("")
    with pytest.raises(UsageError, match="cannot write to"):
        exported(out, "txt")
    assert not list(photos.iterdir())
