"""Runs on GPUs of this machine, which are CPUs here: their processes, and when these die."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from captioner.errors import CaptionerUnavailable
from captioner.jobs import JobConfig, run_job
from captioner.jobs.errors import TemporaryError, UsageError
from captioner.jobs.execution.cluster import gpu_processes as gpu
from captioner.jobs.execution.cluster import local
from captioner.jobs.execution.cluster.forks import forking
from captioner.jobs.execution.worker.run_state import GPU_PROCESS
from captioner.loading import open_captioner
from tests.support.commands import GIVE_UP_SECONDS, environment
from tests.support.photographs import photograph, write_photographs
from tests.support.tables import read_table

IMAGES = 24


@pytest.fixture
def job(job: JobConfig, calibrated_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> JobConfig:
    """Return a job for workers of this machine, which has two GPUs: CPUs in their stead."""
    monkeypatch.setattr(local, "_gpus_of", lambda config: 2)
    monkeypatch.setattr(gpu, "PAUSES", (0.0, 0.0))
    write_photographs(Path(str(job.source)), IMAGES)
    return replace(
        job,
        checkpoint=calibrated_checkpoint,
        scheduler=None,
        workers=3,
        device="cpu",
        precision="float32",  # in bfloat16, the batch matters too much for this small network
    )


def gpu_processes() -> list[multiprocessing.Process]:
    children = multiprocessing.active_children()
    return [child for child in children if child.name.startswith("GPU process")]


@contextmanager
def killing(may_go_on: Callable[[int], bool]) -> Iterator[None]:
    """Kill each GPU process once it is there, while one more `may_go_on` to be killed."""
    ended = threading.Event()

    def kill() -> None:
        killed: set[int | None] = set()
        while not ended.wait(0.01) and may_go_on(len(killed)):
            for process in gpu_processes():
                if process.pid not in killed and may_go_on(len(killed)):
                    killed.add(process.pid)
                    process.kill()

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def rows(out: object) -> dict[str, tuple[str, str, float]]:
    table = read_table(Path(str(out))).to_pylist()
    assert len({row["image_uri"] for row in table}) == len(table) == IMAGES
    return {
        row["image_uri"]: (
            row["status"],
            row["caption"],
            pytest.approx(row["confidence"], abs=1e-5),
        )
        for row in table
    }


def test_a_run_has_the_rows_of_a_run_without_gpu_processes(
    job: JobConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = run_job(job)
    assert report.exit_code == 0 and report.seconds["gpu"] > 0
    assert not gpu_processes()
    monkeypatch.setattr(local, "_gpus_of", lambda config: 0)
    run_job(replace(job, out=tmp_path / "without"))
    ours, others = rows(job.out), rows(tmp_path / "without")
    for uri, (status, caption, confidence) in ours.items():
        assert others[uri] == (status, caption, pytest.approx(confidence, abs=1e-5))


def test_workers_take_turns_on_gpus_and_have_the_processes_of_these(
    job: JobConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-1")
    with forking(job), local.local_workers(job, 1) as client:
        seen = client.run(os.getenv, "CUDA_VISIBLE_DEVICES")
        folders = client.run(os.getenv, GPU_PROCESS)
        assert len(gpu_processes()) == 2
    pairs = sorted((seen[worker], Path(folders[worker]).name) for worker in seen)
    assert pairs == [("3", "gpu-0"), ("3", "gpu-0"), ("GPU-1", "gpu-1")]
    with forking(job), local.local_workers(replace(job, workers=1), 1):
        assert len(gpu_processes()) == 1


def test_a_gpu_process_that_dies_costs_no_image(
    job: JobConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    with killing(lambda killed: killed < 2):
        report = run_job(job)
    assert report.statuses == {"ok": IMAGES}
    assert {row[0] for row in rows(job.out).values()} == {"ok"}
    assert capsys.readouterr().err.count("has died and is started again: ") == 2


def test_gpu_processes_that_keep_dying_end_the_run_which_can_be_tried_again(
    job: JobConfig,
) -> None:
    with (
        killing(lambda _: True),
        pytest.raises(TemporaryError, match=r"GPU \d has died 3 times .*nvidia-smi"),
    ):
        run_job(replace(job, workers=1))
    assert run_job(job).statuses == {"ok": IMAGES}


def test_a_gpu_that_pytorch_cannot_use_ends_the_run_at_once(
    job: JobConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "99")
    with pytest.raises(UsageError, match="no CUDA device is available: choose the device cpu"):
        run_job(replace(job, workers=1, device="cuda"))


def test_a_run_that_is_interrupted_leaves_no_gpu_process(job: JobConfig) -> None:
    with pytest.raises(KeyboardInterrupt), local.local_workers(job, 1):
        processes = gpu_processes()
        raise KeyboardInterrupt
    assert len(processes) == 2
    assert not any(process.is_alive() for process in processes)


def test_a_gpu_process_that_hangs_is_started_again(
    job: JobConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(gpu, "QUIET_SECONDS", 5.0)
    with forking(job), gpu.gpu_processes(job, 1, tmp_path) as (folder,):
        captioner = open_captioner(job.captioner, folder)
        captioner.caption(photograph(0))
        (process,) = gpu_processes()
        assert process.pid
        os.kill(process.pid, signal.SIGSTOP)
        assert captioner.caption(photograph(0)).text
    assert "started again: it hangs: for 5 s, it has given no sign" in caplog.text


def test_workers_learn_that_a_gpu_process_cannot_be_started(
    job: JobConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("multiprocessing.context.SpawnProcess.start", _end_of_file)
    with gpu.gpu_processes(job, 1, tmp_path) as (folder,):
        captioner = open_captioner(job.captioner, folder)
        with pytest.raises(CaptionerUnavailable, match=r"has died 3 times .*EOFError"):
            captioner.caption(photograph(0))


def _end_of_file(_: object) -> None:
    raise EOFError


def test_a_folder_of_a_gpu_process_that_cannot_be_made_ends_the_run(
    job: JobConfig, tmp_path: Path
) -> None:
    with (
        pytest.raises(TemporaryError, match=r"gpu-0: No such file or directory .TMPDIR"),
        gpu.gpu_processes(job, 1, tmp_path / "nowhere"),
    ):
        pass
    with (
        pytest.raises(UsageError, match=r"gpu-0/socket, is longer than 107 bytes: let TMPDIR"),
        gpu.gpu_processes(job, 1, tmp_path / ("long" * 20)),
    ):
        pass


def test_the_end_of_a_process_is_told_in_words() -> None:
    codes = (None, 3, -9, -signal.SIGRTMIN - 1)
    assert [gpu._said_by(code) for code in codes] == [
        "it does not end",
        "it ended with exit code 3",
        "killed by SIGKILL",
        f"killed by signal {signal.SIGRTMIN + 1}",
    ]


DRIVER = """
import sys
from captioner.jobs.cli.main import main
from captioner.jobs.execution.cluster import local
if __name__ == "__main__":
    local._gpus_of = lambda config: 1
    sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_a_driver_that_is_killed_leaves_no_process(job: JobConfig, tmp_path: Path) -> None:
    script = tmp_path / "driver.py"
    script.write_text(DRIVER)
    options = ("--out", job.out, "--checkpoint", job.checkpoint, "--device", "cpu", "--workers", 1)
    command = [sys.executable, script, "run", job.source, *options, "--quiet"]
    with subprocess.Popen([*map(str, command)], env=environment()) as process:
        driver = psutil.Process(process.pid)
        while not (family := _with_socket(driver)):
            assert process.poll() is None
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGKILL)
    _, alive = psutil.wait_procs(family, GIVE_UP_SECONDS)
    assert not alive


def _with_socket(driver: psutil.Process) -> list[psutil.Process]:
    """Return the processes that a driver has started, if one of them is a GPU process at work."""
    family = driver.children(recursive=True)
    pids = {process.pid for process in family}
    sockets = (each for each in psutil.net_connections("unix") if each.pid in pids)
    return family if any(str(each.laddr).endswith("gpu-0/socket") for each in sockets) else []
