"""The time and memory of `captioner compact`, for a table of millions of rows in small files.

python tests/benchmarks/compaction.py [--rows 10000000] [--rows-of-a-file 500]
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).parent.parent.parent))
from captioner.schemas.caption_table import Alternative, CaptionRow, Status, rows_to_table
from tests.support.commands import command

RANDOM = np.random.default_rng(0)
WORDS = ("a", "man", "in", "red", "dog", "on", "the", "grass", "runs", "with", "of", "water", "and")
TEMPLATE_ROWS = 10_000  # as in a row group of a merged file: nothing repeats within one
NOW = datetime.now(UTC)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--rows-of-a-file", type=int, default=500)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        write_table(Path(name, "captions"), options.rows, options.rows_of_a_file)
        measure(Path(name))


def measure(out: Path) -> None:
    start = time.perf_counter()
    process = subprocess.Popen(command("compact", out))
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0
    seconds = time.perf_counter() - start
    used = usage.ru_utime + usage.ru_stime
    print(f"{seconds:.0f} s, of processor time {used:.0f} s; {usage.ru_maxrss / 1024:.0f} MiB")


def write_table(captions: Path, rows: int, rows_of_a_file: int) -> None:
    """Write files of rows with captions, whose hashes and URIs are all different."""
    captions.mkdir()
    template = rows_to_table([row() for _ in range(TEMPLATE_ROWS)], pa.table({}), {})
    for number, first in enumerate(range(0, rows, rows_of_a_file)):
        count = min(rows_of_a_file, rows - first)
        places = np.arange(first, first + count) % TEMPLATE_ROWS
        part = template.take(pa.array(places))
        uris = [
            f"s3://bucket/photos/{n // 1000:06d}/{n:09d}.jpg" for n in range(first, first + count)
        ]
        for column, values in enumerate((uris, hashes(count, 16), hashes(count, 32))):
            part = part.set_column(column, part.schema.field(column), pa.array(values))
        pq.write_table(part, captions / f"1-{number:06d}.parquet", compression="zstd")


def hashes(count: int, size: int) -> list[str]:
    return [RANDOM.bytes(size).hex() for _ in range(count)]


def row() -> CaptionRow:
    """Return a row whose caption is about as long as that of a photograph."""
    tokens = -RANDOM.random(int(RANDOM.integers(6, 13)))
    confidence, *log_probs = RANDOM.random(3).tolist()
    return CaptionRow(
        *("", None, Status.OK, "flickr8k@0123456789ab", "20260101T000000-000000-0000", NOW),
        width=int(RANDOM.choice([500, 375])),
        height=int(RANDOM.choice([500, 375, 333])),
        format="JPEG",
        caption=text(len(tokens)),
        confidence=confidence,
        needs_review=confidence < 0.5,
        log_prob=float(tokens.sum()),
        token_log_probs=tokens.tolist(),
        alternatives=[Alternative(caption=text(len(tokens)), log_prob=-p) for p in log_probs],
    )


def text(words: int) -> str:
    return " ".join(RANDOM.choice(WORDS, words).tolist()).capitalize() + "."


if __name__ == "__main__":
    main()
