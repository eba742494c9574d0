"""What a run leaves on a disk that is full."""

import errno
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from captioner.jobs import JobConfig, run_job
from captioner.jobs.errors import JobError
from captioner.jobs.storage.backends.paths import OutPath
from captioner.jobs.table.writer import Writer
from captioner.schemas.job_report import JobReport
from tests.support.photographs import write_photographs


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a file system of 40 kB, which root alone may do."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", "size=40k", "tmpfs", str(folder)]
    try:
        subprocess.run(mounting, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no file system can be mounted here")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)  # an error may hold open files


def test_a_disk_that_is_full_at_the_end_gives_the_report_to_the_caller(
    job: JobConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_photographs(Path(str(job.source)), 2)
    left = 2  # attempts that fail
    write_text = Writer.write_text

    def write(writer: Writer, text: str, path: OutPath) -> None:
        nonlocal left
        if path.name == "report.json" and (left := left - 1) >= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        write_text(writer, text, path)

    monkeypatch.setattr(Writer, "write_text", write)
    with pytest.raises(JobError, match="No space left") as stop:
        run_job(job)
    assert stop.value.report and stop.value.report.captioned == stop.value.report.planned > 0
    left = 1
    assert run_job(job).exit_code == 0, "room was made"


def test_a_full_disk_leaves_a_whole_report(
    tmp_path: Path, small_disk: Path, tiny_checkpoint: Path
) -> None:
    photos = write_photographs(tmp_path / "photos", 3)
    job = JobConfig(photos, small_disk / "out", checkpoint=tiny_checkpoint, quiet=True)
    with pytest.raises(JobError, match=r"cannot go on in .*No space left") as stop:
        run_job(job)
    (path,) = small_disk.glob("out/runs/*/report.json")
    report = JobReport.from_json(path.read_text())
    assert report == stop.value.report
    assert report.exit_code == 1 and report.error and "No space left" in report.error
    assert not [*small_disk.glob("out/runs/*/scratch/*")]
