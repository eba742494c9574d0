"""One start of the page: queues, windows and decisions. All of it runs in one event loop.

What reads or writes files runs in the background, so that a decision never waits for a queue.
"""

import asyncio
import secrets
import time
from collections import OrderedDict, defaultdict
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

from captioner.jobs.errors import JobError, TemporaryError
from captioner.jobs.publish.review.item import Item, read_item
from captioner.jobs.publish.review.page.background import Background
from captioner.jobs.publish.review.page.desk import Desk, Step
from captioner.jobs.publish.review.page.others import Others
from captioner.jobs.publish.review.page.pictures import Pictures
from captioner.jobs.publish.review.queue import (
    Filters,
    Queue,
    Scope,
    build_queue,
    hash_of,
    table_version,
)
from captioner.jobs.publish.review.texts import Refused
from captioner.jobs.table.reviews import ReviewWriter
from captioner.schemas.review import Decision, Review

AHEAD = 6  # images whose rows and pictures are ready before they are shown
QUEUES = 3  # kept, one for each set of filters
ITEMS = 1000  # kept: what a window shows must be among them
LOOK_SECONDS = 3  # between looks at what others do
READERS = 4  # threads that read rows, queues and what others decide
TRIES = 3  # to read a table that is being rewritten
K = TypeVar("K")
V = TypeVar("V")


@dataclass(frozen=True)
class Window:
    """What a page shows: the image it shows now, if it still does, and the next ones."""

    items: list[Item]
    remaining: int
    total: int


class Session:
    """The decisions of one person, in any number of windows."""

    def __init__(self, scope: Scope, reviewer: str) -> None:
        self.scope = scope
        self.writer = ReviewWriter(scope.out, reviewer, "page")
        self.pictures = Pictures()
        self.saved = 0  # decisions that were not taken back
        self.by_others: dict[int, Review] = {}  # the latest since the start, by image
        self._others = Others(scope.out, self.writer.session)
        self._desks: defaultdict[str, Desk] = defaultdict(Desk)
        self._queues: OrderedDict[Filters, asyncio.Task[Queue]] = OrderedDict()
        self._marks: list[tuple[Review, bool]] = []  # what left the queues, or came back
        self._items: OrderedDict[str, Item] = OrderedDict()
        self._looked = 0.0
        self._look: asyncio.Task[None] | None = None
        self._reading = Background(READERS)
        self._saving = Background(1)
        self._unsaved = asyncio.Lock()
        self._spread = secrets.randbelow(2**16) + 1

    def desk(self, window: str) -> Desk:
        """Return the desk of a window, which is there from now on."""
        desk = self._desks[window]
        desk.seen = time.monotonic()
        return desk

    def item(self, name: str) -> Item:
        """Return what a page shows; raise Refused if that was too long ago."""
        if name not in self._items:
            raise Refused("this picture was shown too long ago: reload the page")
        return self._items[name]

    def begin(self, filters: Filters) -> "asyncio.Task[Queue]":
        """Begin to build the queue of these filters, if that was not begun before."""
        if filters not in self._queues:
            building = asyncio.create_task(self._build(filters))
            building.add_done_callback(_look_at_failure)
            _keep(self._queues, filters, building, QUEUES)
        return self._queues[filters]

    async def window(self, desk: Desk) -> Window:
        """Return the next images for a window, and begin to make their pictures.

        Raise JobError or OSError if the table cannot be read.
        """
        for _ in range(TRIES):
            queue = await self._queue(desk.filters)
            self._look_around()
            try:
                items = await self._next_items(queue, desk)
                break
            except TemporaryError:  # rewritten meanwhile
                self._queues.clear()
        else:
            raise TemporaryError(f"{self.scope.out.captions} is being rewritten; try again")
        for item in items:
            _keep(self._items, item.id, item, ITEMS)
            self.pictures.prepare(item.row["image_uri"])
        desk.held = {item.image for item in items}
        return Window(items, queue.remaining, len(queue))

    async def decide(self, desk: Desk, item: Item, decision: str, text: str) -> Review:
        """Save a decision; raise Refused if it does not fit, OSError if it cannot be saved."""
        review = await self._save([item.review(decision, text)])
        desk.steps.append(Step(item, review))
        self.saved += 1
        self._mark(review, gone=True)
        return review

    def skip(self, desk: Desk, item: Item) -> None:
        """Put an image off until all others are decided."""
        desk.skipped.add(item.image)
        desk.steps.append(Step(item, None))

    async def undo(self, desk: Desk) -> Step:
        """Take the last step of a window back; raise Refused if there is none."""
        if not desk.steps:
            raise Refused("there is nothing to undo")
        step = desk.steps.pop()
        desk.skipped.discard(step.item.image)
        if step.review:
            try:
                async with self._unsaved:
                    await self._saving.run(self.writer.undo, [step.review])
            except OSError:
                desk.steps.append(step)
                raise
            self.saved -= 1
            self._mark(step.review, gone=False)
        return step

    async def finish(self) -> None:
        """Wait until all decisions that have arrived are saved."""
        async with self._unsaved:
            return

    async def _save(self, reviews: list[Review]) -> Review:
        async with self._unsaved:
            (saved,) = await self._saving.run(self.writer.add, reviews)
        return saved

    async def _queue(self, filters: Filters) -> Queue:
        """Return the queue of these filters; it is built at the first call."""
        building = self.begin(filters)
        try:
            return await asyncio.shield(building)
        finally:
            has_failed = building.done() and building.exception()
            if has_failed and self._queues.get(filters) is building:
                del self._queues[filters]

    async def _build(self, filters: Filters) -> Queue:
        marked = len(self._marks)
        for left in reversed(range(TRIES)):
            try:
                queue = await self._reading.run(build_queue, self.scope, filters)
                break
            except TemporaryError:
                if not left:
                    raise
        for review, gone in self._marks[marked:]:
            queue.mark(hash_of(review.image_uri), hash_of(review.image_sha256), gone=gone)
        return queue

    async def _next_items(self, queue: Queue, desk: Desk) -> list[Item]:
        """Read the next images: no skipped ones or those of other windows while there are more."""
        others = [o.held for o in self._desks.values() if o is not desk and not o.is_away]
        numbers = self._next(queue, desk.skipped.union(*others)) or self._next(queue, desk.skipped)
        if not numbers:
            desk.skipped.clear()
            numbers = self._next(queue, desk.skipped)
        reading = (self._reading.run(read_item, queue, number) for number in numbers)
        return list(await asyncio.gather(*reading))

    def _next(self, queue: Queue, passed: set[int]) -> list[int]:
        """Return the entries of the next images that are not among those to be passed over."""
        upcoming = queue.upcoming(self._spread if self._others.are_at_work else 0)
        left = (number for number in upcoming if int(queue.image[number]) not in passed)
        return list(islice(left, AHEAD))

    def _mark(self, review: Review, *, gone: bool) -> None:
        """Take an image out of all queues, or put it back.

        A queue that was built when the image was decided lacks it, and is built again.
        """
        self._marks.append((review, gone))
        image, content = hash_of(review.image_uri), hash_of(review.image_sha256)
        for filters, building in list(self._queues.items()):
            queue = _ready(building)
            if queue is None:
                continue
            if not queue.mark(image, content, gone=gone) and not gone:
                del self._queues[filters]

    def _look_around(self) -> None:
        """Begin to look at what others do, if the last look was some time ago."""
        if time.monotonic() - self._looked > LOOK_SECONDS and (not self._look or self._look.done()):
            self._look = asyncio.create_task(self._see_others())

    async def _see_others(self) -> None:
        try:
            self._apply(await self._reading.run(self._others.new))
            version = await self._reading.run(table_version, self.scope.out)
        except (JobError, OSError):
            return  # the store is away for a moment, or a file: the next look will tell
        finally:
            self._looked = time.monotonic()
        for filters, building in list(self._queues.items()):
            queue = _ready(building)
            if queue is not None and queue.version != version:
                del self._queues[filters]

    def _apply(self, reviews: list[Review]) -> None:
        """Take out what others decided, and put back what they undid."""
        for review in reviews:
            is_undone = review.decision == Decision.UNDONE
            self.by_others.pop(hash_of(review.image_uri), None)
            if not is_undone:
                self.by_others[hash_of(review.image_uri)] = review
            self._mark(review, gone=not is_undone)


def _ready(building: "asyncio.Task[Queue]") -> Queue | None:
    """Return a queue that has been built; None if it is being built, or that has failed."""
    has_failed = building.done() and (building.cancelled() or building.exception())
    return building.result() if building.done() and not has_failed else None


def _look_at_failure(building: "asyncio.Task[Queue]") -> None:
    """Keep asyncio from reporting a failure that no page has asked about yet."""
    if not building.cancelled():
        building.exception()


def _keep(kept: "OrderedDict[K, V]", key: K, value: V, most: int) -> None:
    """Put a value last, and drop the first ones beyond `most`."""
    kept[key] = value
    kept.move_to_end(key)
    while len(kept) > most:
        kept.popitem(last=False)
