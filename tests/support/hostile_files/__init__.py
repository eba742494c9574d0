"""Hostile image files of many kinds, made from a seed: `hostile_images(2_000, seed=1)`.

A file of each kind has the suffix that a collection might give it, right or wrong. Whatever they
hold, each is one row of a table.
"""

import random
from collections.abc import Callable, Iterator, Mapping
from itertools import cycle, islice

from tests.support.hostile_files.bombs import BOMBS
from tests.support.hostile_files.damaged import DAMAGED
from tests.support.hostile_files.others import OTHERS
from tests.support.hostile_files.unusual import UNUSUAL

Make = Callable[[random.Random], bytes]
KINDS: Mapping[str, Make] = {**UNUSUAL, **DAMAGED, **BOMBS, **OTHERS}
SUFFIXES = (".jpg", ".png", ".tif", ".webp", ".gif", ".JPG", ".bmp", ".heic")


def hostile_images(count: int, seed: int) -> Iterator[tuple[str, str, bytes]]:
    """Yield kind, file name and content of `count` files, of each kind in turn."""
    chance = random.Random(seed)
    for number, (kind, make) in enumerate(islice(cycle(KINDS.items()), count)):
        name = f"{number:05}-{kind.replace(' ', '-')}{chance.choice(SUFFIXES)}"
        yield kind, name, make(chance)
