"""The events of a run -> its throughput over time, and the step that the others waited for."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import numpy.typing as npt

from captioner.schemas.job_report import JobReport

BINS = 48
MIN_COMMITS = 4  # fewer say nothing about time


@dataclass(frozen=True)
class Pace:
    """The images per second in each of BINS equal parts of a run of `seconds`.

    The workers took `took` seconds for their tasks, in total; 0 if the events do not say so.
    """

    rates: npt.NDArray[np.float64]
    seconds: float
    took: float


def read_pace(events: Iterable[str], report: JobReport) -> Pace | None:
    """Read the pace of a run from the lines of its events; None if it has too few of them.

    A part counts for the time that it took, or else for the time since the part before it.
    """
    length = max((report.finished_at - report.started_at).total_seconds(), 1e-3)
    edges = np.linspace(0, length, BINS + 1)
    images, commits, took, before = np.zeros(BINS), 0, 0.0, 0.0
    for event in map(json.loads, events):
        if event["event"] == "committed":
            at = (datetime.fromisoformat(event["at"]) - report.started_at).total_seconds()
            since = max(at - event["took"], 0.0) if "took" in event else before
            images += event["images"] * _shares(edges, since, at)
            commits, took, before = commits + 1, took + event.get("took", 0.0), at
    return Pace(images / (length / BINS), length, took) if commits >= MIN_COMMITS else None


def _shares(edges: npt.NDArray[np.float64], since: float, at: float) -> npt.NDArray[np.float64]:
    """Return the share of a stretch of time that is in each bin [BINS]."""
    return np.diff(np.clip((edges - since) / max(at - since, 1e-6), 0, 1))
