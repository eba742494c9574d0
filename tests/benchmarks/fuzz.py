"""Fuzz images, manifests, archives or the review, guided by coverage, for minutes of CPU time.

    pip install atheris  # for Linux
    python tests/benchmarks/fuzz.py --target images --minutes 30
    python tests/benchmarks/fuzz.py --target images --again fuzzing/images/findings/error-1234abcd

A finding is an error that is not declared, more than 30 seconds or 1 GiB, or the end of the
process. It is kept in a folder, as is the corpus, from which the next call goes on. Exit code 1 if
there is any.
"""

import argparse
import importlib
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT))
TARGETS = ("images", "manifests", "archives", "review")
ROUND = 300  # seconds of CPU time of a process: what it leaks goes with it
SLOWEST = 100  # wall clock over CPU time, on a busy machine
# Each input is written to a file. On a disk, that would take more time than the rest.
IN_MEMORY = Path("/dev/shm")
_COVERED = re.compile(r"cov: (\d+)")
_RUNS = re.compile(r"^(?:Done |stat::number_of_executed_units: )(\d+)", re.MULTILINE)
_BEGUN = re.compile(r"^#(\d+)\t", re.MULTILINE)


@dataclass
class Count:
    """What was done so far: CPU seconds, inputs, and the most places in the code that were seen."""

    seconds: float = 0
    inputs: int = 0
    covered: int = 0

    def add(self, log: str, seconds: float) -> None:
        runs = _RUNS.findall(log) or _BEGUN.findall(log) or ["0"]
        self.seconds += seconds
        self.inputs += int(runs[-1])
        self.covered = max([self.covered, *map(int, _COVERED.findall(log))])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--target", choices=TARGETS, required=True)
    parser.add_argument("--minutes", type=float, default=30, help="of CPU time")
    parser.add_argument("--folder", type=Path, default=Path("fuzzing"), help="of what is kept")
    parser.add_argument("--again", type=Path, help="only run the input in this file")
    options = parser.parse_args()
    if options.again:
        again(options.target, options.again)
        return 0
    folder = (options.folder / options.target).absolute()
    for name in ("corpus", "findings"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    count = Count()
    while count.seconds < 60 * options.minutes:
        left = 60 * options.minutes - count.seconds
        one_round(options.target, folder, min(ROUND, int(left) + 10), count)
        findings = [path for path in (folder / "findings").iterdir() if path.suffix != ".txt"]
        print(
            f"{options.target}: {count.seconds / 60:.1f} CPU minutes, {count.inputs:,} inputs, "
            f"{count.covered:,} places covered, {len(findings)} findings in {folder}/findings",
            flush=True,
        )
    return 1 if findings else 0


def again(target: str, path: Path) -> None:
    """Run a target without a fuzzer, where its error can be seen."""
    with tempfile.TemporaryDirectory() as folder:
        module = importlib.import_module(f"tests.support.fuzzing.{target}")
        with module.target(Path(folder)) as run:
            run(path.read_bytes())


def one_round(target: str, folder: Path, seconds: int, count: Count) -> None:
    """Fuzz in a process until it ends; keep the last input if it ended without a word."""
    before, kept = children_seconds(), len(list((folder / "findings").iterdir()))
    with (
        tempfile.TemporaryDirectory(dir=IN_MEMORY if IN_MEMORY.is_dir() else None) as work,
        (folder / "log.txt").open("w+", errors="replace") as log,
    ):
        command = ["-m", "tests.support.fuzzing.child", target, str(folder), str(seconds)]
        with subprocess.Popen(
            [sys.executable, *command],
            cwd=work,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=log,
            stderr=log,
        ) as process:
            try:
                code = process.wait(SLOWEST * seconds)
            except subprocess.TimeoutExpired:
                process.kill()
                code = process.wait()
        log.seek(0)
        said = log.read()
        count.add(said, children_seconds() - before)
        findings = folder / "findings"
        if code and len(list(findings.iterdir())) == kept:
            shutil.move(Path(work, "current"), findings / f"death-{kept}")
            (findings / f"death-{kept}.txt").write_text(said[-10_000:])


def children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    sys.exit(main())
