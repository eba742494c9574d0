"""Dictionaries that keep their latest values."""

from collections import OrderedDict
from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")


def keep(kept: "OrderedDict[K, V]", key: K, value: V, most: int) -> None:
    """Put a value last, and drop the first ones beyond `most`."""
    kept[key] = value
    kept.move_to_end(key)
    while len(kept) > most:
        kept.popitem(last=False)
