"""Work done ahead by threads, in order."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def take_ahead(items: Iterable[T], ahead: int) -> Iterator[T]:
    """Yield the items in order, each after up to `ahead` more were taken, whose work may begin."""
    waiting: deque[T] = deque()
    for item in items:
        waiting.append(item)
        if len(waiting) > ahead:
            yield waiting.popleft()
    yield from waiting


def map_ahead(
    pool: Executor, function: Callable[[T], R], items: Iterable[T], ahead: int
) -> Iterator["Future[R]"]:
    """Submit `function(item)` for each item, and yield the futures in order.

    At most `ahead` calls are submitted beyond the one that is yielded, so that memory is bounded.
    """
    return take_ahead((pool.submit(function, item) for item in items), ahead)
