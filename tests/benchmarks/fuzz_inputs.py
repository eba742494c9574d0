"""Damaged manifests, Parquet files and archives without end: does each give rows, or a clear error?

Changes bytes of small files at random, lists each result and fetches a few of its images. Prints
what ends in any other exception, takes longer than 30 seconds, or ends the process.

    python tests/benchmarks/fuzz_inputs.py [--minutes 10] [--seed 0] [--only .parquet]
"""

import argparse
import os
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path

import pyarrow as pa

from captioner.jobs.errors import FetchError, UsageError
from captioner.jobs.fetching.container_reader import ImageReader
from captioner.jobs.sources.open_source import open_source
from captioner.jobs.storage.filesystems import configure
from captioner.schemas.image_record import records_of
from tests.support.hostile_inputs import HOSTILE, source_of

LARGEST = 100_000  # bytes of a file to begin with
EACH = 200  # files in a process
SECONDS = 30
LIMIT_BYTES = 4 * 2**30  # of address space
NUMBERS = (b"\0", b"\xff", b"\x7f", b"\x80", b"\xff\xff\xff\x7f", b"\xff" * 8, b"\0" * 8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", default=[""], help="parts of the names")
    options = parser.parse_args()
    end = time.monotonic() + 60 * options.minutes
    findings = 0
    with tempfile.TemporaryDirectory() as folder:
        seeds = small_files(Path(folder), options.only)
        start = 0
        while time.monotonic() < end:
            done = in_process(Path(folder), seeds, options.seed, start)
            findings += done < EACH
            start += done + 1 if done < EACH else EACH
    print(f"{start} files from {len(seeds)}, {findings} findings")
    sys.exit(bool(findings))


def small_files(folder: Path, parts: Sequence[str]) -> dict[str, bytes]:
    found = {}
    for name, write in HOSTILE.items():
        if "bomb" not in name and "long" not in name and any(part in name for part in parts):
            write(folder / name)
            if (folder / name).stat().st_size <= LARGEST:
                found[name] = (folder / name).read_bytes()
    return found


def in_process(folder: Path, seeds: dict[str, bytes], seed: int, start: int) -> int:
    """Read EACH files in a process of its own; return how many of them it survived."""
    count = folder / "count"
    count.write_text("0")
    child = os.fork()
    if not child:
        resource.setrlimit(resource.RLIMIT_AS, (LIMIT_BYTES, LIMIT_BYTES))
        for number in range(EACH):
            count.write_text(str(number))
            read_one(folder, seeds, f"{seed}-{start + number}")
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if not status:
        return EACH
    print(f"ended by {os.waitstatus_to_exitcode(status)}: {seed}-{start + int(count.read_text())}")
    return int(count.read_text())


def read_one(folder: Path, seeds: dict[str, bytes], key: str) -> None:
    random_ = random.Random(key)
    name = random_.choice([*seeds])
    path = folder / name
    path.write_bytes(changed(seeds[name], random_, [*seeds.values()]))
    signal.alarm(SECONDS)
    try:
        read(source_of(path))
    except UsageError as error:
        assert str(error) and "Traceback" not in str(error)
    except BaseException:  # noqa: BLE001 (what is looked for)
        traceback.print_exc()
        print(f"{key}: {name}", flush=True)
        os._exit(1)
    finally:
        signal.alarm(0)


def read(source: str) -> None:
    configure({})  # forgets an archive of the same name
    for batch in islice(open_source(source).batches, 20):
        records = records_of(pa.Table.from_batches([batch.slice(0, 20)]))
        with ImageReader(records, 10**6) as reader:
            for number in range(len(records)):
                try:
                    reader.read(number)
                except FetchError as error:
                    assert str(error)


def changed(data: bytes, random_: random.Random, others: Sequence[bytes]) -> bytes:
    result = bytearray(data)
    for _ in range(random_.choice((1, 1, 2, 4, 16))):
        at = random_.randrange(len(result) + 1)
        random_.choice(CHANGES)(result, at, random_, others)
    return bytes(result)


def flip(data: bytearray, at: int, random_: random.Random, _: Sequence[bytes]) -> None:
    if at < len(data):
        data[at] ^= 1 << random_.randrange(8)


def put(data: bytearray, at: int, random_: random.Random, _: Sequence[bytes]) -> None:
    number = random_.choice(NUMBERS)
    data[at : at + len(number)] = number


def insert(data: bytearray, at: int, random_: random.Random, _: Sequence[bytes]) -> None:
    data[at:at] = random_.randbytes(random_.choice((1, 2, 8, 512)))


def delete(data: bytearray, at: int, random_: random.Random, _: Sequence[bytes]) -> None:
    del data[at : at + random_.choice((1, 2, 8, 512))]


def repeat(data: bytearray, at: int, random_: random.Random, _: Sequence[bytes]) -> None:
    data[at:at] = data[at : at + random_.choice((1, 8, 512))] * random_.choice((1, 10, 100))


def splice(data: bytearray, at: int, random_: random.Random, others: Sequence[bytes]) -> None:
    other = random_.choice(others)
    start = random_.randrange(len(other) + 1)
    data[at:at] = other[start : start + random_.choice((4, 64, 1024))]


CHANGES: Sequence[Callable[[bytearray, int, random.Random, Sequence[bytes]], None]] = (
    flip,
    flip,
    put,
    insert,
    delete,
    repeat,
    splice,
)

if __name__ == "__main__":
    main()
