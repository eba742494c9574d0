"""The batches of an epoch: in random order, and read ahead of their use."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy.typing as npt
import torch


def read_ahead(array: npt.NDArray[Any], batches: Sequence[list[int]]) -> Iterator[npt.NDArray[Any]]:
    """Yield the rows of each batch; a thread reads them while the batch before it is in use."""
    with ThreadPoolExecutor(1) as reader:
        reading = deque([reader.submit(array.__getitem__, batch) for batch in batches[:1]])
        for batch in batches[1:]:
            reading.append(reader.submit(array.__getitem__, batch))
            yield reading.popleft().result()
        yield from (last.result() for last in reading)


def random_batches(images: int, size: int) -> Iterator[list[int]]:
    """Yield the indices of all images in random order, `size` at a time, without the remainder."""
    order = torch.randperm(images).tolist()
    for start in range(0, images - size + 1, size):
        yield order[start : start + size]
