"""What a training says of itself: a line for each phase, and how far a long one is."""

import logging
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from tqdm import tqdm

LOGGER = logging.getLogger("captioner")
SECONDS = 60  # between two lines about a phase
LINE = "{desc}: {n_fmt} of {total_fmt}{unit}, {remaining} left{postfix}"

T = TypeVar("T")


def say(text: str) -> None:
    """Log what begins or has ended."""
    LOGGER.info(text)


def warn(text: str) -> None:
    """Log what the user should know before hours are spent."""
    LOGGER.warning(text)


@contextmanager
def only_errors(quiet: bool) -> Iterator[None]:
    """Say nothing but errors while the context lasts, if it shall be quiet."""
    former = LOGGER.level
    LOGGER.setLevel(logging.ERROR if quiet else former)
    try:
        yield
    finally:
        LOGGER.setLevel(former)


def bar(items: Iterable[T], what: str, unit: str, total: int | None = None) -> "tqdm[T]":
    """Return items with a bar on a terminal; elsewhere, a line is logged every SECONDS.

    The `total` is needed if the items have no length.
    """
    if sys.stderr.isatty() and LOGGER.level < logging.ERROR:
        return tqdm(items, what, total, unit=unit, leave=False)
    return tqdm(
        items, what, total, unit=unit, leave=False, file=_Lines(), bar_format=LINE,
        delay=SECONDS, mininterval=SECONDS, miniters=1,
    )  # fmt: skip


class _Lines:
    """A file that logs what a bar writes, but for its control characters and blanks."""

    def write(self, text: str) -> None:
        if line := text.strip():
            say(line)

    def flush(self) -> None:
        """Do nothing: a log keeps nothing back."""
