"""The command as users start it, and as they and their machines end it."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.commands import GIVE_UP_SECONDS, captioner, environment, start
from tests.support.photographs import write_photographs
from tests.support.tables import image_names, statuses

pytestmark = pytest.mark.slow
COUNT = 120
NAMES = [f"{n:03d}.jpg" for n in range(COUNT)]


class Run:
    """`captioner run` on slow images, in the background and in a process group of its own."""

    def __init__(self, folder: Path, checkpoint: Path) -> None:
        self.out = folder / "out"
        self.arguments = ["run", folder / "photos", "--out", self.out, "--checkpoint", checkpoint]
        self.arguments += ["--partition-size", 4, "--batch-size", 4]
        self.workers: list[object] = ["--workers", 2]
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> subprocess.Popen[str]:
        self.process = start(*self.arguments, *self.workers)
        return self.process

    def parts(self) -> int:
        return len(list((self.out / "captions").glob("*.parquet")))

    def wait_until(self, holds: Callable[[], bool]) -> None:
        assert self.process is not None
        end = time.monotonic() + GIVE_UP_SECONDS
        while not holds():
            assert time.monotonic() < end and self.process.poll() is None
            time.sleep(0.01)

    def start_and_wait_for_parts(self, parts: int = 1) -> subprocess.Popen[str]:
        process = self.start()
        self.wait_until(lambda: self.parts() >= parts)
        return process

    def finish(self) -> None:
        """Run to the end; each image must then have exactly one row."""
        result = captioner(*self.arguments, *self.workers)
        assert result.returncode == 0, result.stderr
        assert image_names(self.out) == NAMES
        assert statuses(self.out) == {"ok": COUNT}

    def kill(self) -> None:
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.communicate()


@pytest.fixture
def run(tmp_path: Path, tiny_checkpoint: Path) -> Iterator[Run]:
    write_photographs(tmp_path / "photos", COUNT, harm=b"SLOW")
    run = Run(tmp_path, tiny_checkpoint)
    yield run
    run.kill()


def without_progress(stderr: str) -> str:
    """Leave out the lines of progress that a slow machine prints."""
    line = r"^captioner: (\S+ of \S+ images|listing|planning|starting).*\n"
    return re.sub(line, "", stderr, flags=re.MULTILINE)


def test_one_command_captions_a_folder_and_the_next_one_has_nothing_to_do(
    tmp_path: Path, tiny_checkpoint: Path
) -> None:
    write_photographs(tmp_path / "photos", 5)
    (tmp_path / "photos" / "empty.jpg").touch()
    (tmp_path / "photos" / "notes.txt").touch()
    arguments = ("run", "photos", "--out", "out", "--checkpoint", tiny_checkpoint)
    first = captioner(*arguments, cwd=tmp_path)
    assert (first.returncode, without_progress(first.stderr)) == (0, "")
    lines = [line.split(maxsplit=1) for line in first.stdout.splitlines()]
    names = [
        "images",
        "skipped",
        "captioned",
        "failed",
        "unreadable",
        "speed",
        "table",
        "run",
        "report",
    ]
    assert [name for name, _ in lines] == names
    assert lines[0][1] == "6"
    assert lines[1][1] == "1 without an image's extension: .txt"
    assert lines[3][1] == "1 (1 unreadable)"
    assert lines[4][1] == f"{tmp_path / 'photos' / 'empty.jpg'}: empty file"
    assert lines[6][1] == str(tmp_path / "out" / "captions")
    assert lines[8][1] == f"{tmp_path}/out/runs/{lines[7][1]}/report.html"
    assert Path(lines[8][1]).is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "photos"]
    again = captioner(*arguments, cwd=tmp_path)
    assert again.returncode == 0
    assert again.stdout.splitlines()[0].endswith("nothing to do (6 already in the table)")
    status = captioner("status", "out", cwd=tmp_path)
    assert "captioned  5\nfailed     1 (1 unreadable)\n" in status.stdout


def test_a_run_without_work_imports_neither_torch_nor_dask(tmp_path: Path) -> None:
    manifest = tmp_path / "list.csv"
    manifest.write_text("image_uri\n")
    code = (
        "import sys; from captioner.jobs import JobConfig, run_job;"
        f"job = JobConfig({str(manifest)!r}, {str(tmp_path / 'out')!r}, empty_ok=True);"
        "assert run_job(job).images == 0;"
        "sys.exit(bool({'torch', 'dask', 'distributed'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], env=environment(), check=True)


def kill_all(process: subprocess.Popen[str]) -> None:
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def kill_the_driver_alone(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()


def press_ctrl_c(process: subprocess.Popen[str]) -> None:
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the workers as well
    output, errors = process.communicate(timeout=GIVE_UP_SECONDS)
    assert process.returncode == 130
    message = "captioner: interrupted; the same command continues from here\n"
    assert without_progress(errors) == message
    assert "captioned" in output


def terminate(process: subprocess.Popen[str]) -> None:
    process.terminate()
    _, errors = process.communicate(timeout=GIVE_UP_SECONDS)
    assert process.returncode == 143, errors


def test_however_a_run_ends_the_next_one_resumes_without_losing_or_repeating_an_image(
    run: Run,
) -> None:
    before = 0
    for end in (kill_all, kill_the_driver_alone, press_ctrl_c, terminate):
        process = run.start_and_wait_for_parts(before + 1)
        end(process)
        assert before < run.parts() < COUNT / 4, end
        before = run.parts()
    run.finish()
    assert not list(run.out.glob("runs/*/scratch"))


def test_workers_that_outlive_a_killed_run_add_no_duplicate_rows(run: Run, scheduler: str) -> None:
    run.workers = ["--scheduler", scheduler, "--partition-size", COUNT // 2]
    run.start()
    run.wait_until(lambda: len(list(run.out.glob("runs/*/scratch/*.started"))) == 2)
    assert run.process is not None
    kill_the_driver_alone(run.process)
    run.finish()


def test_a_second_run_at_the_same_time_is_refused(run: Run) -> None:
    process = run.start()
    run.wait_until(lambda: (run.out / "captions").is_dir())
    second = captioner(*run.arguments)
    assert second.returncode == 75
    assert re.search(rf"is in use by run \S+, process {process.pid} on", second.stderr)


def test_an_image_that_kills_workers_costs_its_own_row_only(
    tmp_path: Path, tiny_checkpoint: Path
) -> None:
    photos = write_photographs(tmp_path / "photos", 12)
    (photos / "005.jpg").write_bytes(b"DIE!")
    out = tmp_path / "out"
    arguments = ("--out", out, "--checkpoint", tiny_checkpoint, "--partition-size", 4)
    result = captioner("run", photos, *arguments)
    assert (result.returncode, without_progress(result.stderr)) == (0, "")
    assert image_names(out) == NAMES[:12]
    assert statuses(out) == {"ok": 11, "crashed": 1}
