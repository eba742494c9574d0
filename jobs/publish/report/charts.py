"""Numbers -> bars: their places in percent of the drawing, the axes, and the same as a table."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import floor, log10

import numpy as np
import numpy.typing as npt

from captioner.jobs.publish.report.collect import BINS, Collected
from captioner.jobs.publish.report.pace import Pace
from captioner.jobs.publish.report.words import duration, number

_GAP = 0.12  # between bars, as a share of their width
_STEPS = (1, 2, 4, 6, 8, 10)  # times a power of ten: where an axis ends


@dataclass(frozen=True)
class Bar:
    """A bar: the place of its upper left corner, and its size. All in percent."""

    x: float
    y: float
    width: float
    height: float
    kind: str


@dataclass(frozen=True)
class Tick:
    """A place on the x axis, in percent, and its name; `anchor` is as in SVG."""

    x: float
    text: str
    anchor: str


@dataclass(frozen=True)
class Chart:
    """A bar chart. `top` and `middle` name the values of two lines; `mark` is a place on the x axis
    in percent. `name` describes it in words; `rows` have the same numbers, under `columns`.
    """

    name: str
    bars: Sequence[Bar]
    top: str
    middle: str
    ticks: Sequence[Tick]
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    mark: float | None = None


def histogram(collected: Collected) -> Chart:
    """Return the histogram of confidences, with those below the threshold apart."""
    counts = collected.histogram.reshape(BINS, -1).sum(1)
    below, threshold = collected.below, collected.threshold
    top = _end_of_axis(max(counts.max(), 2))
    bars = [*_bars(below, np.zeros(BINS), top, "low"), *_bars(counts - below, below, top, "high")]
    name = f"Captions by confidence, from 0 to 1 in steps of {1 / BINS}."
    columns, cells = ["Confidence", "Captions"], [_ranges(), [f"{count:,}" for count in counts]]
    if threshold is not None:
        name += f" The threshold is {threshold:.3g}."
        columns.append("Below the threshold")
        cells.append([f"{count:,}" for count in below])
    return Chart(
        name=name,
        bars=bars,
        top=number(top),
        middle=number(top / 2),
        ticks=_ticks("0", "0.25", "0.5", "0.75", "1"),
        columns=columns,
        rows=list(zip(*cells, strict=True)),
        mark=None if threshold is None else 100 * threshold,
    )


def throughput(pace: Pace) -> Chart:
    """Return the images per second over the time of a run."""
    top = _end_of_axis(pace.rates.max())
    bins = len(pace.rates)
    times = [duration(pace.seconds * number / bins) for number in range(bins)]
    return Chart(
        name=f"Images per second over the {duration(pace.seconds)} of the run.",
        bars=_bars(pace.rates, np.zeros(bins), top, "high"),
        top=number(top),
        middle=number(top / 2),
        ticks=_ticks("0", duration(pace.seconds / 2), duration(pace.seconds)),
        columns=["Time from the start", "Images per second"],
        rows=list(zip(times, map(number, pace.rates.tolist()), strict=True)),
    )


def _ticks(*texts: str) -> list[Tick]:
    """Return ticks at even distances, from one end of the axis to the other."""
    last = len(texts) - 1
    anchors = ["start", *["middle"] * (last - 1), "end"]
    places = [100 * place / last for place in range(len(texts))]
    return [Tick(*values) for values in zip(places, texts, anchors, strict=True)]


def _ranges() -> list[str]:
    return [f"{low / BINS:.2f} to {(low + 1) / BINS:.2f}" for low in range(BINS)]


def _bars(
    heights: npt.NDArray[np.generic], floors: npt.NDArray[np.generic], top: float, kind: str
) -> list[Bar]:
    """Return a bar for each height that is not zero, which stands on the floor at its place."""
    slot = 100 / len(heights)
    return [
        Bar(
            x=round((place + _GAP / 2) * slot, 3),
            width=round((1 - _GAP) * slot, 3),
            y=round(100 - 100 * (low + height) / top, 3),
            height=round(100 * height / top, 3),
            kind=kind,
        )
        for place, (height, low) in enumerate(zip(heights.tolist(), floors.tolist(), strict=True))
        if height
    ]


def _end_of_axis(highest: float) -> float:
    """Return a round number that is not below the highest value."""
    if highest <= 0:
        return 1.0
    power = 10.0 ** floor(log10(highest))
    return next(step * power for step in _STEPS if step * power >= highest * (1 - 1e-9))
