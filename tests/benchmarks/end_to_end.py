"""Images per second of whole runs, and where the time goes, for several splits of the machine.

    python tests/benchmarks/end_to_end.py --images DIR [--limit 1000] [--checkpoint NAME]

Each run is `captioner run` on the same images into an empty folder. `images/s` counts from the
start of the command to its end; `steady` leaves out the start of the workers and the loading of
the model: it counts from the first committed partition to the last. The shares are of the time
that the stages took, summed over all workers.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any

from captioner.jobs.sources.open_source import open_source

STAGES = ("fetch", "decode", "encode", "search", "commit")


def main() -> None:
    """Run every split in turn and print a line for each."""
    options = _options()
    cores = len(os.sched_getaffinity(0))
    splits = options.workers or sorted({1, max(cores // 2, 1), cores}, reverse=True)
    with tempfile.TemporaryDirectory() as folder:
        manifest = _manifest(options.images, options.limit, Path(folder))
        header = f"{'workers':>7} {'threads':>7} {'images/s':>8} {'steady':>8}"
        print(header, *(f"{stage:>7}" for stage in STAGES), flush=True)
        for workers in splits:
            out = Path(folder) / f"out {workers}"
            seconds = _run(manifest, out, options.checkpoint, workers)
            print(_line(workers, max(cores // workers, 1), out, seconds), flush=True)


def _options() -> Any:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=_Verbatim)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--limit", type=int, default=1000)
    parser.add_argument("--checkpoint", default="flickr8k")
    parser.add_argument("--workers", type=int, nargs="*", help="splits to try")
    return parser.parse_args()


class _Verbatim(argparse.RawDescriptionHelpFormatter):
    """A formatter that keeps the lines of the description."""


def _manifest(images: Path, limit: int, folder: Path) -> Path:
    """Write a manifest of the first images; read them all once, so that the disk is no factor."""
    batches = open_source(images).batches
    uris = islice((uri for batch in batches for uri in batch["image_uri"].to_pylist()), limit)
    lines = [json.dumps({"image_uri": uri}) for uri in uris if Path(uri).read_bytes()]
    path = folder / "images.jsonl"
    path.write_text("\n".join(lines))
    return path


def _run(manifest: Path, out: Path, checkpoint: str, workers: int) -> float:
    command = [
        sys.executable,
        "-m",
        "captioner.jobs",
        "run",
        str(manifest),
        "--out",
        str(out),
        "--quiet",
    ]
    command += ["--quiet", "--checkpoint", checkpoint, "--workers", str(workers)]
    start = time.perf_counter()
    subprocess.run(command, check=True)
    return time.perf_counter() - start


def _line(workers: int, threads: int, out: Path, seconds: float) -> str:
    (run,) = (out / "runs").glob("2*")
    report = json.loads((run / "report.json").read_text())
    speed = report["images"] / seconds
    total = sum(report["seconds"].values())
    shares = (f"{report['seconds'].get(stage, 0) / total:>7.1%}" for stage in STAGES)
    figures = f"{workers:>7} {threads:>7} {speed:>8.1f} {_steady(run):>8.1f}"
    return " ".join([figures, *shares])


def _steady(run: Path) -> float:
    lines = (run / "events.jsonl").read_text().splitlines()
    commits = [json.loads(line) for line in lines]
    first, *others = [event for event in commits if event["event"] == "committed"]
    times = [datetime.fromisoformat(event["at"]) for event in (first, others[-1])]
    return sum(event["images"] for event in others) / (times[1] - times[0]).total_seconds()


if __name__ == "__main__":
    main()
