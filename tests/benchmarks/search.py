"""The index of a large table: how long it takes to build, update and search, and how much memory.

Each step is a process of its own, the command `captioner` as people run it, except that a query is
also timed inside one process, without the start of Python.

    python tests/benchmarks/search.py [--rows 1000000]
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

from captioner.jobs.publish.find.search import search_words
from captioner.jobs.storage.backends.paths import out_path
from captioner.jobs.table.layout import OutFolder
from captioner.jobs.table.reviews import ReviewWriter
from captioner.schemas.caption_table import caption_table_schema
from captioner.schemas.review import Decision, Review

FILE_ROWS = 50_000
PEOPLE = ("man", "dog", "woman", "boy", "girl", "child", "cat", "horse", "group", "player")
PLACES = ("street", "beach", "grass", "snow", "water", "field", "park", "mountain", "couch", "road")
VERBS = ("running", "standing", "sitting", "jumping", "playing", "riding", "walking", "looking")
QUERIES = ("dog on a beach", "horse jumping", "dog", '"standing on the snow"', "thing12* park")
WHERE = "confidence > 0.7"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--measure", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(options.measure)
        return
    with tempfile.TemporaryDirectory() as folder:
        run(Path(folder), options.rows)


def run(out: Path, rows: int) -> None:
    write_table(out, rows)
    print(f"a table of {rows:,} rows, {sum(f.stat().st_size for f in out.rglob('*')) >> 20} MiB")
    step("index", out)
    print(f"{'its size':<44} {(out / 'index.sqlite').stat().st_size >> 20:>6} MiB")
    step("index, nothing changed", out)
    review(out, 1_000)
    step("index, 1,000 reviews", out)
    write_part(out, rows, FILE_ROWS)
    step(f"index, {FILE_ROWS:,} new rows", out)
    step("search", out, query=QUERIES[0])
    for query in QUERIES:
        for where in (None, WHERE):
            time_query(out / "index.sqlite", query, where)


def step(name: str, out: Path, query: str = "") -> None:
    command = ["search", query, out] if query else ["index", out]
    measured = [sys.executable, __file__, "--measure", *map(str, command)]
    subprocess.run(measured, check=True)
    print(f" {name}")


def measure(command: list[str]) -> None:
    start = time.perf_counter()
    arguments = [sys.executable, "-m", "captioner.jobs", *command]
    subprocess.run(arguments, check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - start
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu, peak = used.ru_utime + used.ru_stime, used.ru_maxrss >> 10
    print(f"{seconds:>8.2f} s (CPU: {cpu:.2f} s) {peak:>6} MiB", end="", flush=True)


def time_query(index: Path, query: str, where: str | None) -> None:
    seconds = []
    for _ in range(5):
        start = time.process_time()  # of one thread that waits for nothing
        found = search_words(index, query, where, 20).found
        seconds.append(time.process_time() - start)
    name = f"{query} [{where}]" if where else query
    print(f"{name:<44} {1000 * np.median(seconds):>6.1f} ms, {len(found)} found")


def review(out: Path, count: int) -> None:
    writer = ReviewWriter(OutFolder(out_path(out)), "ann", "import")
    writer.add(
        Review(
            "", uri(number), None, Decision.EDITED, "A wolf in the mist.", None, None, None,
            "", "", datetime.now(UTC),
        )
        for number in range(0, 500 * count, 500)
    )  # fmt: skip


def write_table(out: Path, rows: int) -> None:
    (out / "captions").mkdir()
    for first in range(0, rows, FILE_ROWS):
        write_part(out, first, min(FILE_ROWS, rows - first))


def write_part(out: Path, first: int, count: int) -> None:
    """Write rows whose words are as unevenly frequent as in real captions."""
    random = np.random.default_rng(first)
    captions = some_captions(random, count)
    others = [caption.replace(" is ", " seems to be ") for caption in captions]
    thirds = some_captions(random, count)
    one = {"image_uri": "", "status": "ok", "captioner": "flickr8k@0123456789ab", "run_id": "1"}
    one |= {"annotated_at": datetime.now(UTC), "format": "JPEG", "width": 640, "height": 480}
    part = pa.Table.from_pylist([one], caption_table_schema())
    part = part.take(pa.array(np.zeros(count, int)))
    values = {
        "image_uri": [uri(number) for number in range(first, first + count)],
        "image_sha256": [random.bytes(32).hex() for _ in range(count)],
        "caption": captions,
        "confidence": random.random(count, np.float32),
        "alternatives": [
            [{"caption": text, "log_prob": -5.0} for text in texts]
            for texts in zip(others, thirds, strict=True)
        ],
    }
    for name, column in values.items():
        place = part.schema.get_field_index(name)
        field = part.schema.field(name)
        part = part.set_column(place, field, pa.array(column, field.type))
    pq.write_table(part, out / "captions" / f"1-{first:09d}.parquet", compression="zstd")


def uri(number: int) -> str:
    return f"s3://bucket/photos/{number // 1000:06d}/{number:09d}.jpg"


def some_captions(random: np.random.Generator, count: int) -> list[str]:
    chosen = [zipf(random, words, count) for words in (PEOPLE, VERBS, PLACES, ())]
    return [f"A {a} is {b} on the {c} with a {d}." for a, b, c, d in zip(*chosen, strict=True)]


def zipf(random: np.random.Generator, words: tuple[str, ...], count: int) -> list[str]:
    every = np.array([*words, *(f"thing{n}" for n in range(2000))])
    weights = 1 / (np.arange(len(every)) + 2)
    return random.choice(every, count, p=weights / weights.sum()).tolist()


if __name__ == "__main__":
    main()
