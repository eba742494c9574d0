"""Does the memory of a worker stay flat over many photographs?

    python tests/benchmarks/worker_memory.py --images DIR [--count 100000] [--workers 1]

Runs the command `captioner run` over links to the JPEG files in DIR, each of them many times, and
prints the resident memory of each worker: its median in the second and in the last tenth of the
time between the first and the last sample with a model.
"""

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent.parent))
from tests.support.commands import command
from tests.support.processes import Sample, run_sampled

MODEL = 2**28  # bytes, at least, of a worker that captions; others are watchdogs
SECONDS = 0.5
PER_FOLDER = 10_000


def main() -> None:
    """Run the job and print a line for each worker."""
    options = _options()
    with tempfile.TemporaryDirectory(dir=options.images.parent) as name:
        photos, out = Path(name, "photos"), Path(name, "out")
        _link(options.images, photos, options.count)
        line = command("run", photos, "--out", out, "--quiet", "--workers", options.workers)
        samples = run_sampled(line, SECONDS)
    for pid, each in samples.items():
        loaded = [sample for sample in each if sample.resident > MODEL]
        if len(loaded) > 10:
            print(_line(pid, loaded), flush=True)


def _options() -> Any:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=1)
    return parser.parse_args()


def _link(images: Path, photos: Path, count: int) -> None:
    """Link each photograph as often as it takes to have `count` files."""
    for number, path in enumerate(islice(cycle(sorted(images.glob("*.jpg"))), count)):
        folder = photos / f"{number // PER_FOLDER:03d}"
        folder.mkdir(parents=True, exist_ok=True)
        os.link(path, folder / f"{number:07d}{path.suffix}")


def _line(pid: int, samples: Sequence[Sample]) -> str:
    tenth = len(samples) // 10
    second = _median(samples[tenth : 2 * tenth])
    last = _median(samples[-tenth:])
    change = f"{last / second - 1:+.1%}"
    peak = max(sample.resident for sample in samples)
    minutes = (samples[-1].at - samples[0].at) / 60
    return (
        f"worker {pid}: second tenth {second / 2**20:.0f} MiB, last tenth {last / 2**20:.0f} MiB"
        f" ({change}), peak {peak / 2**20:.0f} MiB, {minutes:.0f} minutes"
    )


def _median(samples: Sequence[Sample]) -> float:
    return statistics.median(sample.resident for sample in samples)


if __name__ == "__main__":
    main()
