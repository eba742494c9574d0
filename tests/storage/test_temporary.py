"""Temporary folders of killed processes are removed by a later command; those in use stay."""

import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from captioner.jobs.storage import temporary
from captioner.jobs.storage.temporary import TemporaryFolder, remove_dead_folders
from tests.support.commands import environment

HOLD = """
import sys
from pathlib import Path
from captioner.jobs.storage.temporary import TemporaryFolder
folder = TemporaryFolder()
Path(folder.name, "large").mkdir()
print(folder.name, flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(temporary, "SETTLED_SECONDS", 0.0)


def test_only_the_folder_of_a_killed_process_is_removed(tmp_path: Path) -> None:
    (tmp_path / "captioner-of-somebody").mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", HOLD],
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process, TemporaryFolder() as own:  # fmt: skip
        assert process.stdout is not None
        others = Path(process.stdout.readline().strip())
        remove_dead_folders()
        assert others.is_dir() and Path(own).is_dir()
        process.send_signal(signal.SIGKILL)
        process.wait()
        remove_dead_folders()
        assert not others.exists() and Path(own).is_dir()
    assert [path.name for path in tmp_path.iterdir()] == ["captioner-of-somebody"]


def test_a_folder_that_has_just_been_made_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / f"{temporary.PREFIX}new"
    folder.mkdir()
    monkeypatch.setattr(temporary, "SETTLED_SECONDS", 60.0)
    remove_dead_folders()
    assert folder.is_dir()
