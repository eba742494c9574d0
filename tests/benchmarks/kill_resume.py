"""Kill whole runs with SIGKILL at random moments, run them again, and look for every image.

    python tests/benchmarks/kill_resume.py [--moments 20] [--images 200] [--seed 0] [--second]

The moments lie between a second before the first commit of an undisturbed run and its end. Prints
a line for each: when it was, how many images had a row then, and how many rows of how many
different images there are after the next run. Exits with 1 if an image is missing or has two rows.

With --second, the moments lie in the last two thirds, and the job has a second pass, which asks
another captioner about the doubtful captions of the first. Then a moment also fails if captions, or
who wrote them, are not those of the undisturbed run.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent.parent))
from tests.support.commands import command, environment
from tests.support.models import calibrate_tiny_checkpoint, make_tiny_checkpoint
from tests.support.photographs import write_photographs
from tests.support.tables import image_names, read_table

SECOND = """
[second]
checkpoint = "{checkpoint}"
beam_size = 7
redo_below = 0.5
partition_size = 4
"""


def main() -> int:
    """Kill, resume and count, at each moment."""
    options = _options()
    dice = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        photos = write_photographs(folder / "photos", options.images, harm=b"SLOW")
        checkpoint = make_tiny_checkpoint(folder / "tiny")
        arguments = ["run", photos, "--checkpoint", checkpoint, "--partition-size", 4, "--quiet"]
        if options.second:
            calibrate_tiny_checkpoint(checkpoint)
            job = folder / "job.toml"
            job.write_text(SECOND.format(checkpoint=checkpoint))
            arguments += ["--config", job]
        begin = time.time()
        whole = _seconds(arguments, folder / "whole")
        parts = (folder / "whole" / "captions").iterdir()
        first = min(part.stat().st_mtime for part in parts) - begin
        if options.second:  # whose rows replace the first ones
            first = whole / 3
        expected = _captions(folder / "whole")
        second = sum(former is not None for *_, former in expected)
        print(f"{second} of {len(expected)} captions are second opinions")
        print(f"a whole run takes {whole:.1f} s; the first rows are there after {first:.1f} s\n")
        print(f"{'killed at':>9} {'rows then':>9} {'rows':>6} {'images':>6}", flush=True)
        results = []
        for number in range(options.moments):
            moment = dice.uniform(first - 1, whole)
            out = folder / f"out {number}"
            before = _kill(arguments, out, moment)
            _seconds(arguments, out)
            rows = image_names(out)
            whole_table = len(rows) == len(set(rows)) == options.images
            results.append(whole_table and (not options.second or _captions(out) == expected))
            print(f"{moment:>7.2f} s {before:>9} {len(rows):>6} {len(set(rows)):>6}", flush=True)
    as_expected = " with its caption" if options.second else ""
    print(f"\nevery image exactly once{as_expected}: {sum(results)} of {len(results)} times")
    return 0 if all(results) else 1


def _options() -> Any:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--moments", type=int, default=20)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--second", action="store_true")
    return parser.parse_args()


def _captions(out: Path) -> list[tuple[Any, ...]]:
    """Return image, caption, captioner and the former caption of each row."""
    names = ["image_uri", "caption", "captioner", "former"]
    rows = read_table(out).select(names).to_pylist()
    return [
        (*(row[name] for name in names[:3]), (row["former"] or {}).get("caption")) for row in rows
    ]


def _seconds(arguments: list[object], out: Path) -> float:
    start = time.perf_counter()
    subprocess.run(command(*arguments, "--out", out), env=environment(), check=True)
    return time.perf_counter() - start


def _kill(arguments: list[object], out: Path, moment: float) -> int:
    """Kill a run and all its processes after some seconds; return how many rows it committed."""
    line = command(*arguments, "--out", out)
    process = subprocess.Popen(line, env=environment(), start_new_session=True)
    time.sleep(moment)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    has_rows = any((out / "captions").glob("*.parquet"))
    return len(image_names(out)) if has_rows else 0


if __name__ == "__main__":
    sys.exit(main())
