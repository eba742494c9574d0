"""Run a whole job over hostile images of every kind: a row for each, and none at another's cost.

    python tests/benchmarks/hostile_images.py [--images 2000] [--seed 1] [--good 200]

The images are those of tests/support/hostile_files, among good ones and some that hang or end
their process. Prints the statuses, the peak memory of a process of the run, and what is wrong: an
image without a row or with two, a good one that has no caption, an error that a user cannot read.
Exits with 1 if anything is.
"""

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent.parent))
from tests.support.commands import command
from tests.support.hostile_files import hostile_images
from tests.support.photographs import photograph
from tests.support.processes import run_sampled
from tests.support.tables import read_table

HARMS = (b"HANG", b"WAIT", b"DIE!", b"SEGV", b"KILL", b"LACK", b"ODD!")
GOOD = "good"


def main() -> int:
    """Write the images, caption them and look at the rows."""
    options = _options()
    with tempfile.TemporaryDirectory() as name:
        photos, out = Path(name, "photos"), Path(name, "out")
        kinds = _write(photos, options)
        line = command("run", photos, "--out", out, "--quiet", "--image-timeout", options.timeout)
        begin = time.perf_counter()
        samples = run_sampled(line, 0.02)
        seconds = time.perf_counter() - begin
        rows = read_table(out).select(["image_uri", "status", "error"]).to_pylist()
    wrong = _wrong(kinds, rows)
    peak = max(s.resident for each in samples.values() for s in each) / 2**20
    print(f"{len(kinds)} images of {len(set(kinds.values()))} kinds, {seconds:.0f} s")
    print(f"statuses: {dict(Counter(row['status'] for row in rows))}")
    print(f"peak memory of a worker: {peak:.0f} MiB")
    print(*wrong, f"wrong: {len(wrong)}", sep="\n")
    return 1 if wrong else 0


def _options() -> Any:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=2_000)
    parser.add_argument("--good", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--timeout", type=int, default=20, help="--image-timeout of the run")
    return parser.parse_args()


def _write(photos: Path, options: Any) -> dict[str, str]:
    """Write all images; return their kinds by name."""
    photos.mkdir()
    files = {
        name: (kind, data) for kind, name, data in hostile_images(options.images, options.seed)
    }
    for number, word in enumerate(HARMS):
        files[f"{number:05}-{word.decode().lower()}.jpg"] = (
            word.decode(),
            word + photograph(number),
        )
    for number in range(options.good):
        files[f"good-{number:05}.jpg"] = (GOOD, photograph(number))
    shuffled = sorted(files)
    random.Random(options.seed).shuffle(shuffled)
    for place, name in enumerate(shuffled):
        (photos / f"{place:05}-{name}").write_bytes(files[name][1])
    return {f"{place:05}-{name}": files[name][0] for place, name in enumerate(shuffled)}


def _wrong(kinds: dict[str, str], rows: list[dict[str, Any]]) -> list[str]:
    """Return a line for each image whose rows are not as they should be."""
    count = Counter(Path(row["image_uri"]).name for row in rows)
    wrong = [f"{name}: {count[name]} rows" for name in kinds if count[name] != 1]
    wrong += [f"{name}: unknown" for name in count if name not in kinds]
    for row in rows:
        name, status, error = Path(row["image_uri"]).name, row["status"], row["error"]
        if kinds[name] == GOOD and status != "ok":
            wrong.append(f"{name}: {status} ({error})")
        if (status == "ok") != (error is None) or (error and not error.isprintable()):
            wrong.append(f"{name}: {status} with the error {error!r}")
    return wrong


if __name__ == "__main__":
    sys.exit(main())
