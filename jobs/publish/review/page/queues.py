"""The queues of a session, one for each set of filters, built and changed in the background."""

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress

from captioner.jobs.errors import TemporaryError
from captioner.jobs.publish.review.page.background import Background
from captioner.jobs.publish.review.page.decided import Decided
from captioner.jobs.publish.review.page.kept import keep
from captioner.jobs.publish.review.queue import (
    Filters,
    Keys,
    Queue,
    Scope,
    build_queue,
    keys_of,
)
from captioner.schemas.review import Review

MOST = 3  # queues that are kept
TRIES = 3  # to read a table that is being rewritten


class Queues:
    """The latest queues by their filters; `reading` are the threads that build them."""

    def __init__(self, scope: Scope, reading: Background) -> None:
        self.scope = scope
        self._reading = reading
        self._decided = Decided(scope.out)
        self._changing = Background(1)  # one change after the other, in the order of time
        self._building: OrderedDict[Filters, asyncio.Task[Queue]] = OrderedDict()
        self._changes: list[tuple[Keys, Keys, bool]] = []

    def begin(self, filters: Filters) -> "asyncio.Task[Queue]":
        """Begin to build the queue of these filters, if that was not begun before."""
        if filters not in self._building:
            building = asyncio.create_task(self._build(filters))
            building.add_done_callback(_look_at_failure)
            keep(self._building, filters, building, MOST)
        return self._building[filters]

    async def get(self, filters: Filters) -> Queue:
        """Return the queue of these filters; it is built at the first call.

        Raise JobError or OSError if the table cannot be read; the next call tries again.
        """
        building = self.begin(filters)
        try:
            return await asyncio.shield(building)
        finally:
            has_failed = building.done() and _ready(building) is None
            if has_failed and self._building.get(filters) is building:
                del self._building[filters]

    async def set_gone(self, reviews: Sequence[Review], *, gone: bool) -> None:
        """Take images, and those with the same bytes, out of all queues, or put them back.

        A queue that was built when an image was decided lacks it, and is built again.
        """
        images, contents = await self._changing.run(keys_of, reviews)
        self._changes.append((images, contents, gone))
        for filters, queue in self._all_ready():
            has_all = await self._changing.run(queue.set_gone, images, contents, gone)
            if not gone and not has_all:
                self._drop(filters, queue)

    def drop_older(self, version: object) -> None:
        """Drop the queues of another version of the table."""
        for filters, queue in self._all_ready():
            if queue.version != version:
                self._drop(filters, queue)

    def drop_all(self) -> None:
        """Drop all queues, so that they are built again."""
        self._building.clear()

    async def _build(self, filters: Filters) -> Queue:
        known = len(self._changes)
        queue = await self._reading.run(self._read, filters)
        while known < len(self._changes):  # made meanwhile
            await self._changing.run(queue.set_gone, *self._changes[known])
            known += 1
        for _, other in self._all_ready():
            other.in_force = queue.in_force  # the latest decisions, once in memory
        return queue

    def _read(self, filters: Filters) -> Queue:
        in_force = self._decided.decisions()
        for _ in range(TRIES - 1):
            with suppress(TemporaryError):
                return build_queue(self.scope, filters, in_force)
        return build_queue(self.scope, filters, in_force)

    def _all_ready(self) -> list[tuple[Filters, Queue]]:
        found = [(filters, _ready(building)) for filters, building in self._building.items()]
        return [(filters, queue) for filters, queue in found if queue is not None]

    def _drop(self, filters: Filters, queue: Queue) -> None:
        """Drop a queue, unless another one with its filters is being built already."""
        building = self._building.get(filters)
        if building is not None and _ready(building) is queue:
            del self._building[filters]


def _ready(building: "asyncio.Task[Queue]") -> Queue | None:
    """Return a queue that has been built; None if it is being built, or that has failed."""
    has_failed = building.done() and (building.cancelled() or building.exception())
    return building.result() if building.done() and not has_failed else None


def _look_at_failure(building: "asyncio.Task[Queue]") -> None:
    """Keep asyncio from reporting a failure that no page has asked about yet."""
    if not building.cancelled():
        building.exception()
