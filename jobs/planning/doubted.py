"""The listed images with a doubtful caption, and which of them another captioner is asked about."""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from captioner.jobs.planning.partitions import Actions

BLOCK = 1_000_000  # images in memory at once
NOT_CHOSEN, WANTED, DONE = range(3)
_IMAGE = np.dtype([("confidence", np.float32), ("file", np.int32), ("state", np.int8)])
_HALF = 16  # bits of a float32


@dataclass(frozen=True)
class Choice:
    """Which doubtful images to ask about: those with a first confidence `below` a value.

    Or else the least certain `share` of all images with an answer. Only the `most` least certain of
    these are chosen, if there are more.
    """

    below: float | None = None
    share: Fraction | None = None
    most: int | None = None


class DoubtfulImages:
    """Listed images with an answer, by position in the listing; on disk, 9 bytes for each."""

    def __init__(self, path: Path, images: int) -> None:
        self._images = np.memmap(path, _IMAGE, "w+", shape=max(images, 1))

    def add(self, images: pd.DataFrame) -> None:
        """Add images: `position`, `file` of the row, `first_confidence`, and
        whether they are `done`."""
        at = images["position"].to_numpy()
        self._images["confidence"][at] = images["first_confidence"]
        self._images["file"][at] = images["file"]
        self._images["state"][at] = np.where(images["done"], DONE, WANTED)

    def choose(self, choice: Choice, actions: Actions) -> int:
        """Write the files of the images to ask about into `actions`.

        Return how many images the choice is about; more than `most` of them are left for later.
        """
        if choice.share is not None:
            self._keep_least(int(choice.share * self._count(WANTED, DONE)), WANTED, DONE)
        if choice.below is not None:
            for block in self._blocks():
                sure = block["confidence"] >= np.float32(choice.below)
                block["state"][sure] = NOT_CHOSEN
        found = self._count(WANTED)
        if choice.most is not None:
            self._keep_least(choice.most, WANTED)
        for start, block in enumerate(self._blocks()):
            wanted = block["state"] == WANTED
            actions[start * BLOCK :][: len(block)][wanted] = block["file"][wanted]
        return found

    def _blocks(self) -> Iterator[npt.NDArray[Any]]:
        for start in range(0, len(self._images), BLOCK):
            yield self._images[start : start + BLOCK]

    def _count(self, *states: int) -> int:
        return sum(int(np.isin(block["state"], states).sum()) for block in self._blocks())

    def _keep_least(self, count: int, *states: int) -> None:
        """Keep the `count` least certain images in these states; equal ones in their order."""
        if count >= self._count(*states):
            return
        bits, ties = self._greatest_kept(count, states)
        for block in self._blocks():
            values, concerned = _bits(block), np.isin(block["state"], states)
            tied = np.flatnonzero(concerned & (values == bits))
            kept = concerned & (values < bits)
            kept[tied[:ties]] = True
            ties -= min(ties, len(tied))
            block["state"][concerned & ~kept] = NOT_CHOSEN

    def _greatest_kept(self, count: int, states: tuple[int, ...]) -> tuple[int, int]:
        """Return the bits of the last of `count` confidences, and how many of these to keep.

        A radix selection: first by the upper half of the bits, then by the lower.
        """
        upper, before = self._bin(count, states, lambda bits: bits >> _HALF)
        lower, within = self._bin(
            count - before,
            states,
            lambda bits: np.where(bits >> _HALF == upper, bits & ((1 << _HALF) - 1), -1),
        )
        return (upper << _HALF) + lower, count - before - within

    def _bin(self, count: int, states: tuple[int, ...], of: Any) -> tuple[int, int]:
        """Return the bin with the last of `count` images, and how many are in the bins before."""
        totals = np.zeros(1 << _HALF, np.int64)
        for block in self._blocks():
            bins = of(_bits(block)[np.isin(block["state"], states)])
            totals += np.bincount(bins[bins >= 0], minlength=len(totals))
        ends = totals.cumsum()
        last = int(ends.searchsorted(max(count, 1)))
        return last, int(ends[last] - totals[last])


def _bits(block: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Return the bits of confidences, which are in their order because none is negative."""
    return np.ascontiguousarray(block["confidence"]).view(np.int32).astype(np.int64)
