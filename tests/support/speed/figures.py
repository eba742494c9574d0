"""The arithmetic of the speed benchmark: turns, medians, ratios and limits."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

T = TypeVar("T")


class Spread(NamedTuple):
    """The median of several values, the lowest and the highest."""

    median: float
    lowest: float
    highest: float


@dataclass(frozen=True)
class Row:
    """A line of a table: values, one of each round, and ratios to other lines or to limits."""

    name: str
    unit: str
    values: Sequence[float]
    ratios: Mapping[str, float] = field(default_factory=dict)

    @property
    def spread(self) -> Spread:
        return spread(self.values)


@dataclass(frozen=True)
class Table:
    """What one part of the benchmark has measured."""

    title: str
    rows: Sequence[Row]


def spread(values: Sequence[float]) -> Spread:
    """Return the median, the lowest and the highest of at least one value."""
    return Spread(statistics.median(values), min(values), max(values))


def in_turn(things: Mapping[str, Callable[[], T]], rounds: int) -> dict[str, list[T]]:
    """Call each thing once in every round: A, B, C, A, B, C; return their results by name.

    What slows the machine down for a while then slows all of them down.
    """
    results: dict[str, list[T]] = {name: [] for name in things}
    for _ in range(rounds):
        for name, thing in things.items():
            results[name].append(thing())
    return results


def seconds_of(thing: Callable[[], object], finish: Callable[[], object]) -> float:
    """Return how many seconds a thing takes; `finish` waits for what it has only begun."""
    finish()
    start = time.perf_counter()
    thing()
    finish()
    return time.perf_counter() - start


def ratio(values: Sequence[float], others: Sequence[float]) -> float:
    """Return the median of the ratios, round by round."""
    return statistics.median(a / b for a, b in zip(values, others, strict=True))


def steps_limit(others: float, network: float, cores: int, gpus: int = 0) -> float:
    """Return the images/s of a machine whose steps take no longer together than alone.

    An image takes so many seconds of a core for the `network`, which runs on the GPUs if there are
    any, and for all `others`: fetching, decoding and wording. These go on meanwhile.
    """
    if gpus:
        return min(cores / others, gpus / network)
    return cores / (others + network)


def machine_limit(multiply_adds: float, rate: float, processors: int) -> float:
    """Return the images/s of a machine that does nothing but a model's multiply-adds of an image.

    It does them at the `rate`, in 1/s, of each of its processors, cores or GPUs.
    """
    return processors * rate / multiply_adds
