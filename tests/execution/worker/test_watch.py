"""Images that never end, kill their process or eat its memory: each costs its own row only."""

import fcntl
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from captioner.jobs import JobConfig, run_job
from tests.support.clusters import two_workers
from tests.support.photographs import write_photographs
from tests.support.tables import image_names, read_table

LATE = ("timeout", "opening it took more than 6 s")


@pytest.fixture(scope="module")
def small_workers(forkserver: None) -> Iterator[str]:
    """Yield the address of a cluster whose workers have little memory."""
    with two_workers(memory_limit="1.5GiB") as scheduler:
        yield scheduler


@pytest.fixture
def watched_job(job: JobConfig, small_workers: str) -> JobConfig:
    """Return a job for sixteen photographs, which must be opened within six seconds."""
    write_photographs(Path(str(job.source)), 16)
    return replace(job, scheduler=small_workers, partition_size=8, image_timeout=6)


def failures(out: Path) -> dict[str, tuple[str, str]]:
    """Return status and error of the images without a caption; all sixteen have one row."""
    assert image_names(out) == [f"{number:03d}.jpg" for number in range(16)]
    failed = [row for row in read_table(out).to_pylist() if row["status"] != "ok"]
    return {Path(row["image_uri"]).stem: (row["status"], row["error"]) for row in failed}


@contextmanager
def leased(path: Path) -> Iterator[None]:
    """Block whoever opens a file, for as long as the kernel lets its holder."""
    former = signal.signal(signal.SIGIO, signal.SIG_IGN)
    file = os.open(path, os.O_RDWR)
    try:
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        yield
    except OSError as error:
        pytest.skip(f"no leases on this file system: {error}")
    finally:
        os.close(file)
        signal.signal(signal.SIGIO, former)


def harm(job: JobConfig, **kinds: bytes) -> None:
    for name, kind in kinds.items():
        path = Path(str(job.source), f"{name.removeprefix('n')}.jpg")
        path.write_bytes(kind + path.read_bytes())


def test_images_that_hang_or_kill_their_process_cost_their_own_rows_only(
    watched_job: JobConfig,
) -> None:
    harm(watched_job, n002=b"HANG", n004=b"DIE!", n010=b"WAIT")
    report = run_job(watched_job)
    crashed = ("crashed", "the process that opened it died")
    assert failures(Path(watched_job.out)) == {"002": LATE, "004": crashed, "010": LATE}
    assert report.statuses == {"ok": 13, "timeout": 2, "crashed": 1}


def test_an_image_that_eats_all_memory_costs_its_own_row_only(watched_job: JobConfig) -> None:
    harm(watched_job, n012=b"EAT!")
    run_job(replace(watched_job, image_timeout=600))
    ((status, error),) = failures(Path(watched_job.out)).values()
    assert status == "out_of_memory"
    assert error == "its process needed more than 1382 MiB of memory"


def test_a_local_file_that_blocks_costs_its_own_row_only(watched_job: JobConfig) -> None:
    with leased(Path(str(watched_job.source), "005.jpg")):
        run_job(watched_job)
    assert failures(Path(watched_job.out)) == {"005": LATE}
