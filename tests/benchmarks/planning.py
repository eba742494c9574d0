"""The memory and time of planning, for a Parquet manifest of millions of rows.

Plans N rows against an empty table, a tenth of them against an empty table, and N rows against a
table of N rows of which 1% have changed; each in a process of its own, whose peak memory counts.

    python tests/benchmarks/planning.py [--rows 10000000] [--rows-of-a-file 300000]
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from captioner.jobs.planning.partitions import Size, plan_file
from captioner.jobs.planning.plan import make_plan
from captioner.jobs.sources.open_source import open_source
from captioner.jobs.table.keys import Redo
from captioner.jobs.table.layout import OutFolder
from captioner.schemas.caption_table import caption_table_schema

STEP = 100_000
MANIFEST = pa.schema([("image_uri", pa.string()), ("image_version", pa.string())])
TABLE = caption_table_schema()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--rows-of-a-file", type=int, default=300_000)
    parser.add_argument("--plan", nargs=2, type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.plan:
        plan(*options.plan)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_manifest(folder / "all.parquet", options.rows)
        write_manifest(folder / "tenth.parquet", options.rows // 10)
        write_table(folder / "full", options.rows, options.rows_of_a_file)
        print("     manifest          new   changed        there     time      peak     plan")
        for manifest, out in (("tenth", "empty"), ("all", "empty"), ("all", "full")):
            arguments = [folder / f"{manifest}.parquet", folder / out]
            command = [sys.executable, __file__, "--plan", *map(str, arguments)]
            subprocess.run(command, check=True)


def plan(manifest: Path, out: Path) -> None:
    start = time.perf_counter()
    with tempfile.TemporaryDirectory(dir=manifest.parent) as name:
        source = open_source(manifest)
        made = make_plan(source, OutFolder(out), Path(name), Size(500), Redo("flickr8k@0"))
        size = plan_file(Path(name)).stat().st_size / 2**20
    seconds = time.perf_counter() - start
    counts = made.counts
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{counts.listed:>13,} {counts.new:>12,} {counts.changed:>9,} {counts.already_there:>12,}"
        f" {seconds:>6.1f} s {peak:>5.0f} MiB {size:>5.0f} MiB"
    )


def keys(first: int, count: int, changed: bool) -> pa.Table:
    numbers = range(first, first + count)
    uris = [f"s3://bucket/photos/{number // 1000:06d}/{number:09d}.jpg" for number in numbers]
    versions = [f"{number:032x}{'+' * (changed and number % 100 == 0)}" for number in numbers]
    return pa.table([uris, versions], schema=MANIFEST)


def write_manifest(path: Path, rows: int) -> None:
    with pq.ParquetWriter(path, MANIFEST) as writer:
        for first in range(0, rows, STEP):
            writer.write_table(keys(first, min(STEP, rows - first), changed=True))


def write_table(root: Path, rows: int, rows_of_a_file: int) -> None:
    out = OutFolder(root)
    out.captions.mkdir(parents=True)
    row = {"image_uri": "", "status": "ok", "captioner": "flickr8k@0", "run_id": "1"}
    one = pa.Table.from_pylist([row | {"annotated_at": datetime.now(UTC)}], TABLE)
    for number, first in enumerate(range(0, rows, rows_of_a_file)):
        key = keys(first, min(rows_of_a_file, rows - first), changed=False)
        part = one.take(pa.array(np.zeros(key.num_rows, int)))
        for position, name in enumerate(MANIFEST.names):
            part = part.set_column(position, TABLE.field(name), key[name])
        pq.write_table(part, out.captions / f"1-{number:06d}.parquet", compression="zstd")


if __name__ == "__main__":
    main()
