"""A block of memory that a worker shares with a GPU process: pixels one way, what is found back.

It has no name in any file system, and no limit such as that of /dev/shm: one process hands it to
the other, and the kernel frees it once neither has it any more, however they end.
"""

import math
import mmap
import os
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

ALIGNMENT = 64  # bytes


class Field(NamedTuple):
    """An array in a block, by what it has for each image."""

    dtype: str
    shape: tuple[int, ...]


class Layout(NamedTuple):
    """The fields of a block, each for so many `images`."""

    images: int
    fields: tuple[Field, ...]

    @property
    def offsets(self) -> list[int]:
        """Where each field begins, in bytes, and then where the last one ends."""
        sizes = (
            self.images * math.prod(field.shape) * np.dtype(field.dtype).itemsize
            for field in self.fields
        )
        aligned = (-(-size // ALIGNMENT) * ALIGNMENT for size in sizes)
        return [*accumulate(aligned, initial=0)]


def field_of(array: npt.NDArray[Any]) -> Field:
    """Return the field for arrays like this one [N, ...]."""
    return Field(array.dtype.str, array.shape[1:])


def allocate(layout: Layout) -> int:
    """Return the file descriptor of a new block; OSError without memory for it."""
    descriptor = os.memfd_create("captioner")
    try:
        os.posix_fallocate(descriptor, 0, layout.offsets[-1])
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def arrays_in(layout: Layout, descriptor: int) -> list[npt.NDArray[Any]]:
    """Return the arrays [images, ...] of a block; they keep it, so the descriptor may be closed."""
    *offsets, size = layout.offsets
    memory = mmap.mmap(descriptor, size)
    return [
        np.ndarray((layout.images, *field.shape), field.dtype, memory, offset)
        for field, offset in zip(layout.fields, offsets, strict=True)
    ]
