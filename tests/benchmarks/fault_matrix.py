"""Do all that can happen to runs at random moments, run them again, and look for every image.

    python tests/benchmarks/fault_matrix.py [--injections 400] [--images 100] [--seed 0]
        [--scenes folder "OUT on S3" ...] [--only SIGKILL ...]

Runs the command `captioner run` again and again, with real processes, in scenes that differ in
where the images and OUT lie. Each time, faults are injected at random moments: signals to any
process, full disks, denied folders, servers that fail in many ways, other commands at the same OUT,
changes of the source; between runs, files of the table are damaged. After every run, each row must
be that of an undisturbed run and every file whole; after a run that exits with 0, every image must
have exactly one row; and in the end, nothing else may be left. Prints each finding, then all kinds
of faults with the exit codes of the runs that they hit. Exits with 1 if there is a finding.

Disks are filled, and folders denied, only for root. `--only` chooses kinds by parts of their names.
"""

import argparse
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent.parent))
from tests.support.matrix.episode import Episode
from tests.support.matrix.scenes import SCENES, Stage, open_scene, stage
from tests.support.matrix.tally import Tally

WEIGHTS = {"folder": 6, "OUT on S3": 6, "second captioner": 3}  # of scenes; 2 for others


def main() -> int:
    """Play scenes until enough faults were injected; print the table."""
    options = _options()
    tally = Tally(options.injections, options.only or [""])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(options.folder or name)
        folder.mkdir(parents=True, exist_ok=True)
        with stage(folder, options.images) as shared, ThreadPoolExecutor(options.lanes) as pool:
            lanes = [pool.submit(_play, shared, tally, options, n) for n in range(options.lanes)]
    print(tally, flush=True)
    for lane in lanes:
        lane.result()
    return 1 if tally.findings else 0


def _play(shared: Stage, tally: Tally, options: Any, lane: int) -> None:
    dice = Random(f"{options.seed} {lane}")
    names = options.scenes or [name for name in SCENES for _ in range(WEIGHTS.get(name, 2))]
    for number in count():
        if tally.is_full:
            return
        name = dice.choice(names)
        folder = shared.folder / f"{lane}-{number:03d}"
        with open_scene(shared, name, folder, dice) as scene:
            Episode(scene, shared.oracle, tally).play()
        print(f"{sum(tally.injections.values())} injections; {name}", flush=True)


def _options() -> Any:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--injections", type=int, default=400)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--lanes", type=int, default=2, help="scenes side by side")
    parser.add_argument("--scenes", nargs="+", choices=[*SCENES], metavar="SCENE")
    parser.add_argument("--only", nargs="+", metavar="KIND")
    parser.add_argument("--folder", help="where all files stay, to look at them")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
