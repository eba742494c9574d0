"""The whole job: `captioner run` with one worker a core, or as many as it likes beside GPUs."""

import json
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from tests.support.commands import command
from tests.support.speed.figures import Row, in_turn, ratio, spread
from tests.support.speed.photographs import Photographs
from tests.support.speed.subject import Subject, on_cores

STAGES = ("fetch", "decode", "gpu", "encode", "search", "commit")


class Job(NamedTuple):
    """A run on photographs of a size, with so many cores."""

    size: str
    cores: int

    @property
    def name(self) -> str:
        return f"{self.size}, {self.cores} core{'s' if self.cores > 1 else ''}"


Limits = Mapping[Job, Mapping[str, float]]  # images/s of a job, by the name of the limit


@dataclass(frozen=True)
class Measured:
    """A run: images/s from start to end, and without the start; seconds of an image by stage."""

    whole: float
    steady: float | None
    stages: Mapping[str, float]  # summed over all workers


def jobs_of(sets: Photographs, cores: Sequence[int]) -> list[Job]:
    """Return the jobs that are run: each set of photographs with each number of cores."""
    return [Job(size, count) for size in sets for count in cores]


def run_jobs(
    subject: Subject, sets: Photographs, cores: Sequence[int], rounds: int
) -> dict[Job, list[Measured]]:
    """Run the jobs in turn; return what each round has measured."""
    jobs = {job.name: job for job in jobs_of(sets, cores)}
    things: dict[str, Callable[[], Measured]] = {
        name: partial(_run, subject, sets[job.size], job.cores) for name, job in jobs.items()
    }
    return {jobs[name]: runs for name, runs in in_turn(things, rounds).items()}


def job_rows(runs: Mapping[Job, Sequence[Measured]], limits: Limits) -> list[Row]:
    """Return lines of images/s, beside limits and fewer cores, and of milliseconds by stage."""
    rows = []
    for job, measured in runs.items():
        few = Job(job.size, min(other.cores for other in runs))
        for kind in ("whole", "steady"):
            speeds, base = _speeds(measured, kind), _speeds(runs[few], kind)
            if not speeds:
                continue
            ratios = {
                f"of {name}": spread(speeds).median / most for name, most in limits[job].items()
            }
            if few != job:
                ratios[f"by {few.cores}"] = ratio(speeds, base)
            rows.append(Row(f"{job.name}, {kind}", "images/s", speeds, ratios))
        for stage in STAGES:
            values = [1000 * run.stages.get(stage, 0.0) for run in measured]
            rows.append(Row(f"{job.name}, {stage}", "ms an image", values))
    return rows


def _speeds(measured: Sequence[Measured], kind: str) -> list[float]:
    return [speed for run in measured if (speed := getattr(run, kind))]


def _run(subject: Subject, paths: Sequence[Path], cores: int) -> Measured:
    """Run the command on a manifest of the images, into an empty folder."""
    with TemporaryDirectory() as name, on_cores(cores):
        manifest, out = Path(name, "images.jsonl"), Path(name, "out")
        manifest.write_text("\n".join(json.dumps({"image_uri": str(path)}) for path in paths))
        workers = () if subject.gpus else ("--workers", cores)
        line = command("run", manifest, "--out", out, *workers, *subject.arguments)
        start = time.perf_counter()
        subprocess.run([*line, "--quiet", "--quiet"], check=True)
        seconds = time.perf_counter() - start
        (run,) = (out / "runs").glob("2*")
        report = json.loads((run / "report.json").read_text())
        events = map(json.loads, (run / "events.jsonl").read_text().splitlines())
        commits = [event for event in events if event["event"] == "committed"]
    stages = {stage: taken / len(paths) for stage, taken in report["seconds"].items()}
    return Measured(len(paths) / seconds, steady_rate(commits, report["workers"]), stages)


def steady_rate(commits: Sequence[Mapping[str, Any]], workers: int) -> float | None:
    """Return the images/s without the start: after each worker has committed one part, about.

    None if there are no later commits.
    """
    later = commits[workers:]
    if not later:
        return None
    start, end = (datetime.fromisoformat(each["at"]) for each in (commits[workers - 1], later[-1]))
    return sum(each["images"] for each in later) / (end - start).total_seconds()
