"""Caption many images, some of which hang, kill their process or eat its memory; compare.

    python tests/benchmarks/bad_images.py [--images 10000] [--each 3] [--memory GIB]

Runs the command `captioner run` with its default limits twice, into tables of their own: without
the bad images, and with `--each` of each kind among the others, half of those that hang while they
keep Python's lock. Prints rows and statuses of both, and how much longer the second run took. Exits
with 1 if an image has no row or two, or a status that is not its own.

The processes are real, and so are the signals, the memory and the time; only the reader of the bad
images is not that of a real format (tests/faults). `--memory` is for a machine that others use at
the same time: the run takes it for one with that much memory.
"""

import argparse
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent.parent))
from tests.support.commands import command, environment
from tests.support.photographs import photograph
from tests.support.tables import read_table

HARMS: Mapping[str, tuple[bytes, ...]] = {
    "timeout": (b"HANG", b"WAIT"),
    "crashed": (b"DIE!", b"SEGV", b"KILL"),
    "out_of_memory": (b"EAT!",),
}


def main() -> int:
    """Run without the bad images and with them."""
    options = _options()
    if options.memory:  # Linux does not enforce this limit, but Dask goes by it
        limit = int(options.memory * 2**30)
        resource.setrlimit(resource.RLIMIT_RSS, (limit, limit))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        photos = folder / "photos"
        photos.mkdir()
        for number in range(options.images):
            (photos / f"{number:06d}.jpg").write_bytes(photograph(number))
        expected = dict.fromkeys(range(options.images), "ok")
        print(f"{'':>10} {'seconds':>8} {'load':>6} {'rows':>7} {'right':>7}  statuses", flush=True)
        good, plain = _run(options, photos, folder / "good", expected)
        expected |= _harm(photos, options)
        bad, mixed = _run(options, photos, folder / "bad", expected)
    print(f"\nrows lost, doubled or wrong: {plain + mixed}; extra time: {bad - good:.0f} s")
    return 1 if plain + mixed else 0


def _options() -> Any:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--each", type=int, default=3, help="bad images of each kind")
    parser.add_argument("--memory", type=float, metavar="GIB", help="of the machine")
    parser.add_argument("--checkpoint", default="flickr8k")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def _harm(photos: Path, options: Any) -> dict[int, str]:
    """Make some images bad; return their statuses by number."""
    places = random.Random(options.seed).sample(range(options.images), 3 * options.each)
    expected = {}
    for status, kinds in HARMS.items():
        for each in range(options.each):
            number = places.pop()
            path = photos / f"{number:06d}.jpg"
            path.write_bytes(kinds[each % len(kinds)] + path.read_bytes())
            expected[number] = status
    return expected


def _run(options: Any, photos: Path, out: Path, expected: Mapping[int, str]) -> tuple[float, int]:
    """Caption the images; print what became of them; return seconds and how many are wrong."""
    begin = time.perf_counter()
    line = command("run", photos, "--out", out, "--quiet", "--checkpoint", options.checkpoint)
    subprocess.run(line, env=environment(), check=True)
    seconds = time.perf_counter() - begin
    rows = [(int(Path(r["image_uri"]).stem), r["status"]) for r in _rows(out)]
    right = sum(expected[number] == status for number, status in rows)
    statuses = dict(Counter(status for _, status in rows))
    load = os.getloadavg()[1]
    print(f"{out.name:>10} {seconds:>8.1f} {load:>6.1f} {len(rows):>7} {right:>7}  {statuses}")
    missing = len(expected) - len({number for number, _ in rows})
    return seconds, missing + len(rows) - right


def _rows(out: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = read_table(out).select(["image_uri", "status"]).to_pylist()
    return rows


if __name__ == "__main__":
    sys.exit(main())
