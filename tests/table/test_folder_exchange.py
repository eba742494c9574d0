"""Files of a folder that change in one step, by an exchange with a second folder."""

from pathlib import Path

import pytest

from captioner.jobs.errors import TemporaryError
from captioner.jobs.table.compaction.folder_exchange import FolderExchange


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with the files a, b and c."""
    folder = tmp_path / "folder"
    folder.mkdir()
    folder.chmod(0o750)  # whatever the umask
    for name in "abc":
        (folder / name).write_text(name)
    return folder


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    return scratch


def exchange(folder: Path, scratch: Path) -> FolderExchange:
    files = FolderExchange(folder, scratch / folder.name)
    files.prepare()
    return files


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_nothing_changes_before_the_exchange_and_then_all(folder: Path, scratch: Path) -> None:
    files = exchange(folder, scratch)
    for changed, removed, after in [("a", "b", {"a": "A", "c": "c"}), ("c", "a", {"c": "C"})]:
        before = contents(folder)
        files.path(changed).unlink()
        files.path(changed).write_text(changed.upper())
        assert contents(folder) == before
        files.apply(changed, [removed])
        assert contents(folder) == after
    assert folder.stat().st_mode & 0o777 == 0o750


def test_a_file_that_another_program_adds_meanwhile_is_not_lost(
    folder: Path, scratch: Path
) -> None:
    files = exchange(folder, scratch)
    (folder / "d").write_text("d")
    with pytest.raises(TemporaryError, match="another program has changed"):
        files.apply("a", ["b"])
    assert contents(folder) == {"a": "a", "b": "b", "c": "c", "d": "d"}


def test_a_folder_with_folders_or_a_link_to_one_has_no_exchange(
    folder: Path, scratch: Path, tmp_path: Path
) -> None:
    link = tmp_path / "link"
    link.symlink_to(folder)
    with pytest.raises(OSError, match="link"):
        exchange(link, scratch)
    (folder / "below").mkdir()
    with pytest.raises(OSError):
        exchange(folder, scratch)
    assert sorted(path.name for path in folder.iterdir()) == ["a", "b", "below", "c"]
