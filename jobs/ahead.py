"""Iterators that threads read in advance, so that the answers of several are waited for at once."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Generic, TypeVar

T = TypeVar("T")
LISTERS = 8  # more would only wait for this process, which has to parse what they get


class Ahead(Generic[T]):
    """The items of an iterator, of which a pool fetches `count` in advance while others are read.

    An error of the iterator is raised where its next item would be.
    """

    def __init__(self, pool: ThreadPoolExecutor, items: Iterator[T], count: int) -> None:
        self._pool, self._items, self._count = pool, items, count
        self._next = self._submit()

    def _submit(self) -> "Future[list[T]]":
        return self._pool.submit(lambda: list(islice(self._items, self._count)))

    def __iter__(self) -> Iterator[T]:
        while some := self._next.result():
            self._next = self._submit()
            yield from some


def in_turn(iterators: Iterable[Iterator[T]], count: int) -> Iterator[T]:
    """The items of iterators, one after the other; of the next LISTERS, `count` are fetched."""
    pool = ThreadPoolExecutor(LISTERS, thread_name_prefix="listing")
    waiting: deque[Ahead[T]] = deque()
    try:
        for items in iterators:
            waiting.append(Ahead(pool, items, count))
            if len(waiting) == LISTERS:
                yield from waiting.popleft()
        for ahead in waiting:
            yield from ahead
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
