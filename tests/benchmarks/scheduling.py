"""How busy one driver and one scheduler keep many workers, whose captioner only sleeps.

Each partition takes a second (or $PARTITION_SECONDS) and has 40 images a second, as many as a core
captions. The scheduler, the worker processes, the plan and the commits are real. The efficiency is
the time slept over the time that all workers had while captioning. All processes share this
machine: once its cores are busy, they are the limit, so the processor time of each kind of process
is printed, too.

    python tests/benchmarks/scheduling.py [--workers 16 32 64] [--seconds 60]
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from distributed import Client

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT))

from captioner.jobs import JobConfig, run_job  # noqa: E402
from captioner.jobs.execution import driver  # noqa: E402
from tests.benchmarks.flat_memory import write_manifest  # noqa: E402
from tests.support.commands import environment  # noqa: E402

COSTLESS = "tests.support.costless"
# Otherwise, the start of 64 workers takes minutes of processor time.
FORKED = f"""
from multiprocessing.forkserver import ensure_running, set_forkserver_preload
set_forkserver_preload(["{COSTLESS}"])
ensure_running()
"""
SETTINGS = {
    "DASK_DISTRIBUTED__WORKER__MULTIPROCESSING_METHOD": "forkserver",
    # What keeps idle workers busy; see "Scheduler and workers" in jobs/execution/README.md.
    "DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED": "False",
    "DASK_DISTRIBUTED__ADMIN__TICK__INTERVAL": "1s",
    "DASK_DISTRIBUTED__ADMIN__SYSTEM_MONITOR__INTERVAL": "10s",
    "OMP_NUM_THREADS": "1",
}
SECONDS = float(os.environ.get("PARTITION_SECONDS", "1"))
IMAGES = round(40 * SECONDS)  # of a partition
Processes = Mapping[str, psutil.Process]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--workers", type=int, nargs="+", default=[16, 32, 64])
    parser.add_argument("--seconds", type=int, default=60, help="of work for each worker")
    options = parser.parse_args()
    print("                                  CPU ms a partition             cores")
    print("workers  partitions  efficiency   driver  scheduler  workers     busy")
    for workers in options.workers:
        with tempfile.TemporaryDirectory() as name, cluster(workers, Path(name)) as processes:
            partitions = round(workers * options.seconds / SECONDS)
            measure(Path(name), workers, partitions, processes)


@contextmanager
def cluster(workers: int, folder: Path) -> Iterator[Processes]:
    """Yield the processes of a scheduler and of its workers, once all of them have joined."""
    file = folder / "scheduler.json"
    reach = ("--scheduler-file", file, "--no-dashboard")
    with (
        started("scheduler", *reach, "--port", 0) as scheduler,
        started(
            *("worker", *reach, "--nworkers", workers, "--nthreads", 1, "--memory-limit", 0),
            *("--local-directory", folder, "--preload", COSTLESS, "--preload-nanny", FORKED),
        ) as nannies,
    ):
        with Client(scheduler_file=str(file), timeout=60) as client:
            client.wait_for_workers(workers, timeout=600)
        yield {"driver": psutil.Process(), "scheduler": scheduler, "workers": nannies}


@contextmanager
def started(*arguments: object) -> Iterator[psutil.Process]:
    """Yield a process of Dask, and end it."""
    command = [sys.executable, "-m", "dask", *map(str, arguments)]
    variables = environment(**SETTINGS, PARTITION_SECONDS=str(SECONDS))
    with subprocess.Popen(command, env=variables, stderr=subprocess.DEVNULL) as process:
        try:
            yield psutil.Process(process.pid)
        finally:
            process.terminate()


def measure(folder: Path, workers: int, partitions: int, processes: Processes) -> None:
    write_manifest(folder / "list.parquet", partitions * IMAGES)
    job = JobConfig(
        *(folder / "list.parquet", folder / "out"),
        partition_size=IMAGES,
        scheduler=str(folder / "scheduler.json"),
        quiet=True,
    )
    spent: dict[str, float] = {}
    with timing(processes, spent):
        report = run_job(job)
    assert report.captioned == partitions * IMAGES, report.statuses
    assert report.captioning_seconds and report.workers == workers, report.workers
    each = {name: 1000 * seconds / report.partitions for name, seconds in spent.items()}
    efficiency = report.partitions * SECONDS / (workers * report.captioning_seconds)
    print(
        f"{workers:>7} {report.partitions:>11,} {efficiency:>11.3f} {each['driver']:>8.1f}"
        f" {each['scheduler']:>10.1f} {each['workers']:>8.1f}"
        f" {sum(spent.values()) / report.captioning_seconds:>8.2f}",
        flush=True,
    )


@contextmanager
def timing(processes: Processes, spent: dict[str, float]) -> Iterator[None]:
    """Record the seconds of processor time that processes take while the driver has work."""
    run = driver._Driver.run

    def timed(self: Any) -> None:
        before = {name: processor_seconds(process) for name, process in processes.items()}
        run(self)
        for name, process in processes.items():
            spent[name] = processor_seconds(process) - before[name]

    driver._Driver.run = timed  # type: ignore[method-assign]
    yield
    driver._Driver.run = run  # type: ignore[method-assign]


def processor_seconds(process: psutil.Process) -> float:
    """Return the processor time of a process and, unless it is this one, of its descendants."""
    others = [] if process == psutil.Process() else process.children(recursive=True)
    times = [each.cpu_times() for each in (process, *others)]
    return sum(each.user + each.system for each in times)


if __name__ == "__main__":
    main()
