"""The workers of a local cluster: their cores, their GPUs, and what happens when one dies."""

import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import dask
import psutil
import pytest
from cryptography.x509 import load_pem_x509_certificate

from captioner.jobs import JobConfig
from captioner.jobs.errors import TemporaryError
from captioner.jobs.execution.cluster import local as cluster
from captioner.jobs.execution.cluster.certificate import own_security
from captioner.jobs.execution.cluster.forks import forking
from captioner.jobs.execution.cluster.gpu_processes import only_gpu
from captioner.jobs.execution.cluster.nannies import MORE_STARTS
from captioner.jobs.pipeline.loading import READERS, reader_count
from tests.support.commands import GIVE_UP_SECONDS, start
from tests.support.matrix.scene import has_role
from tests.support.photographs import write_photographs


def test_a_process_may_use_one_of_the_gpus_that_the_driver_may_use(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-1")
    assert cluster.gpu_count() == 2
    assert only_gpu(1) == {"CUDA_VISIBLE_DEVICES": "GPU-1"}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert cluster.gpu_count() == 0
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert only_gpu(2) == {"CUDA_VISIBLE_DEVICES": "2"}


@pytest.mark.parametrize(("gpus", "team", "gpu"), [(0, "8", None), (2, "1", "1")])
def test_each_worker_has_its_share_of_the_cores_which_decode_beside_a_gpu(
    gpus: int, team: str, gpu: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "CPU_COUNT", 16)
    environment = cluster._environment(1, 2, gpus, [])
    assert environment["OMP_NUM_THREADS"] == environment["MKL_NUM_THREADS"] == team
    assert environment.get("CUDA_VISIBLE_DEVICES") == gpu
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert reader_count() == 8


def test_few_threads_of_each_worker_read_where_a_gpu_process_captions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cluster, "CPU_COUNT", 16)
    monkeypatch.setenv(READERS, cluster._environment(0, 15, 1, [Path("gpu-0")])[READERS])
    assert reader_count() == 2
    monkeypatch.setenv(READERS, cluster._environment(0, 15, 0, [])[READERS])
    assert reader_count() == 4


def test_gpus_that_pytorch_cannot_use_are_not_counted(
    job: JobConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setattr("captioner.precision._torch_has_cuda", lambda: False)
    monkeypatch.setattr(cluster, "CPU_COUNT", 2)
    job = replace(job, scheduler=None, workers=None, device="auto")
    with forking(job), cluster.local_workers(job, 40) as client:
        assert len(client.nthreads()) == 2


def test_a_large_model_is_loaded_by_few_workers_with_several_cores(
    job: JobConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = replace(job, checkpoint="hf:some/model")
    monkeypatch.setattr(cluster, "CPU_COUNT", 16)
    assert cluster._most_workers(job, 0) == 16
    assert cluster._most_workers(large, 0) == 4
    assert cluster._most_workers(large, 2) == 2
    monkeypatch.setattr(cluster, "CPU_COUNT", 2)
    assert cluster._most_workers(large, 0) == 1


def test_each_core_has_a_worker_and_each_gpu_one_at_least(
    job: JobConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "CPU_COUNT", 16)
    assert [cluster._most_workers(job, gpus) for gpus in (0, 1, 8, 20)] == [16, 16, 16, 20]


def test_a_worker_that_died_is_waited_for_however_long_it_takes_and_no_file_stays(
    job: JobConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    job = replace(job, scheduler=None, workers=1, device="cpu")
    with (
        dask.config.set({"distributed.deploy.lost-worker-timeout": "1ms"}),
        cluster.local_workers(job, 1) as client,
    ):
        (process,) = client.run(os.getpid).values()
        os.kill(process, signal.SIGKILL)
        while client.nthreads():
            time.sleep(0.01)
        assert client.submit(os.getpid).result(timeout=60) != process
    assert not [*temporary.iterdir()]


def test_a_run_that_is_interrupted_leaves_neither_processes_of_its_workers_nor_files(
    job: JobConfig, tmp_path: Path
) -> None:
    job = replace(job, scheduler=None, workers=1, device="cpu")
    with pytest.raises(KeyboardInterrupt), cluster.local_workers(job, 1) as client:
        (folder,) = client.run(tempfile.mkdtemp).values()
        (process,) = client.run(lambda: subprocess.Popen(["sleep", "1000"]).pid).values()
        other = psutil.Process(process)
        client.submit(time.sleep, 1000)
        raise KeyboardInterrupt
    other.wait(GIVE_UP_SECONDS)
    assert not Path(folder).exists()


DIES = """
import os, sys, time
if "spawn_main" in str(sys.orig_argv):
    starts = os.environ["STARTS"]
    with open(starts, "a") as file:
        file.write("x")
    if os.environ["DEATHS"] == "none":
        time.sleep(1000)
    if os.stat(starts).st_size <= int(os.environ["DEATHS"]):
        os.kill(os.getpid(), 9)
"""


@pytest.fixture
def starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file with a byte for each worker that has started, of which the first $DEATHS die."""
    (tmp_path / "sitecustomize.py").write_text(DIES)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.setenv("STARTS", str(tmp_path / "starts"))
    with dask.config.set({"distributed.worker.multiprocessing-method": "spawn"}):
        yield tmp_path / "starts"


def test_a_worker_that_is_killed_while_it_starts_is_started_again(
    starts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEATHS", str(MORE_STARTS))
    with cluster.local_workers(JobConfig("photos", "out", workers=1, device="cpu"), 1) as client:
        assert len(client.nthreads()) == 1
    assert len(starts.read_text()) == MORE_STARTS + 1


def test_workers_that_die_while_they_start_end_the_run_for_now(
    starts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEATHS", "1000")
    with (
        pytest.raises(TemporaryError, match="the workers die while they start"),
        cluster.local_workers(JobConfig("photos", "out", workers=1, device="cpu"), 1),
    ):
        pass
    assert len(starts.read_text()) == MORE_STARTS + 1


def test_a_worker_that_is_slow_to_start_is_not_waited_for_after_ctrl_c(
    starts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEATHS", "none")

    def interrupt() -> None:
        while not starts.exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    with (
        pytest.raises(KeyboardInterrupt),
        cluster.local_workers(JobConfig("photos", "out", workers=1, device="cpu"), 1),
    ):
        pass
    assert starts.read_text() == "x"


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_run_that_is_stopped_while_its_workers_start_ends_with_a_word(
    tmp_path: Path, tiny_checkpoint: Path, number: signal.Signals, code: int
) -> None:
    photos = write_photographs(tmp_path / "photos", 1)
    process = start("run", photos, "--out", tmp_path / "out", "--checkpoint", tiny_checkpoint)
    driver = psutil.Process(process.pid)
    while not any(has_role(each, "worker") for each in driver.children(recursive=True)):
        time.sleep(0.01)
    process.send_signal(number)
    _, errors = process.communicate(timeout=GIVE_UP_SECONDS)
    assert process.returncode == code, errors
    said = [line for line in errors.splitlines() if "0 of 1 images" not in line]
    assert said == ["captioner: interrupted; the same command continues from here"]


def test_workers_may_connect_whatever_the_clock_says() -> None:
    certificate = load_pem_x509_certificate(str(own_security().tls_ca_file).encode())
    years = certificate.not_valid_before_utc.year, certificate.not_valid_after_utc.year
    assert years == (1970, 9999)
