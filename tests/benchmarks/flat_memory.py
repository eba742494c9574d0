"""The cost of the machinery: a run over a million rows with a captioner that costs nothing.

The scheduler, the worker processes, the plan and the commits are real; images are neither fetched
nor captioned. Prints the time a partition takes, and the driver's memory in the first and the last
tenth of the run.

    python tests/benchmarks/flat_memory.py [--rows 1000000] [--workers 2]
"""

import argparse
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import dask
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).parent.parent.parent))
from captioner.jobs import JobConfig, run_job
from captioner.jobs.execution import driver


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        dask.config.set({"distributed.worker.preload": ["tests.support.costless"]})
        write_manifest(folder / "list.parquet", options.rows)
        job = JobConfig(
            folder / "list.parquet", folder / "out", workers=options.workers, quiet=True
        )
        measure(job)


def write_manifest(path: Path, rows: int) -> None:
    schema = pa.schema([("image_uri", pa.string())])
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, rows, 100_000):
            numbers = range(start, min(start + 100_000, rows))
            uris = [f"s3://bucket/photos/{number:09d}.jpg" for number in numbers]
            writer.write_table(pa.table([uris], schema=schema))


def measure(job: JobConfig) -> None:
    samples: list[tuple[float, int]] = []  # time, bytes
    began: list[float] = []
    caption_plan = driver.caption_plan

    def caption(*arguments: object) -> None:
        began.append(time.perf_counter())
        caption_plan(*arguments)  # type: ignore[arg-type]
        began.append(time.perf_counter())

    driver.caption_plan = caption  # type: ignore[assignment]
    ended = threading.Event()
    sampler = threading.Thread(target=sample, args=(samples, ended))
    sampler.start()
    report = run_job(job)
    ended.set()
    sampler.join()
    start, end = began
    memory = [used for at, used in samples if start <= at <= end]
    first, last = tenths(memory)
    assert report.captioned == report.planned, report.statuses
    print(f"rows                      {report.images:,} in {report.partitions:,} partitions")
    print(f"planning                  {start - samples[0][0]:.1f} s")
    each = 1000 * (end - start) / report.partitions
    print(f"a partition               {each:.1f} ms, times workers {each * report.workers:.1f} ms")
    print(f"driver, first tenth       {first / 2**20:.0f} MiB")
    print(f"driver, last tenth        {last / 2**20:.0f} MiB ({last / first - 1:+.1%})")


def sample(samples: list[tuple[float, int]], ended: threading.Event) -> None:
    process = psutil.Process()
    while not ended.wait(0.05):
        samples.append((time.perf_counter(), process.memory_info().rss))


def tenths(values: Sequence[int]) -> Iterator[float]:
    """Return the medians of the first and of the last tenth."""
    tenth = max(1, len(values) // 10)
    yield statistics.median(values[:tenth])
    yield statistics.median(values[-tenth:])


if __name__ == "__main__":
    main()
