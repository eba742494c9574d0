"""One start of the page: queues, windows and decisions. All of it runs in one event loop.

What reads or writes files runs in the background, so that a decision never waits for a queue.
"""

import asyncio
import secrets
import time
from collections import OrderedDict, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from weakref import WeakKeyDictionary

from captioner.jobs.errors import JobError, TemporaryError
from captioner.jobs.publish.review.item import Item, read_item
from captioner.jobs.publish.review.page.background import Background
from captioner.jobs.publish.review.page.desk import Desk, Step
from captioner.jobs.publish.review.page.kept import keep
from captioner.jobs.publish.review.page.others import Others
from captioner.jobs.publish.review.page.pictures import Pictures
from captioner.jobs.publish.review.page.queues import TRIES, Queues
from captioner.jobs.publish.review.queue import Queue, Scope, table_version
from captioner.jobs.publish.review.texts import Refused
from captioner.jobs.table.reviews import ReviewWriter
from captioner.schemas.review import Decision, Review

AHEAD = 6  # images whose rows and pictures are ready before they are shown
ENTRIES = 100  # of each queue that are kept
ITEMS = 1000  # kept: what a window shows must be among them
LOOK_SECONDS = 3  # between looks at what others do
READERS = 4  # threads that read rows, queues and what others decide


@dataclass(frozen=True)
class Window:
    """The images of a page: the one it shows, unless it is decided, and the next ones."""

    items: list[Item]
    remaining: int
    total: int


class Session:
    """The decisions of one person, in any number of windows."""

    def __init__(self, scope: Scope, reviewer: str) -> None:
        self.scope = scope
        self.writer = ReviewWriter(scope.out, reviewer, "page")
        self._reading = Background(READERS)
        self.queues = Queues(scope, self._reading)
        self.pictures = Pictures()
        self.saved = 0  # decisions that were not taken back
        self.by_others: dict[str, Review] = {}  # the latest since the start, by URI
        self._others = Others(scope.out, self.writer.session)
        self._desks: defaultdict[str, Desk] = defaultdict(Desk)
        self._items: OrderedDict[str, Item] = OrderedDict()
        self._entries: WeakKeyDictionary[Queue, OrderedDict[int, Item]] = WeakKeyDictionary()
        self._looked = 0.0
        self._look: asyncio.Task[None] | None = None
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

    async def window(self, desk: Desk) -> Window:
        """Return the next images for a window, and begin to make their pictures.

        Raise JobError or OSError if the table cannot be read.
        """
        for _ in range(TRIES):
            queue = await self.queues.get(desk.filters)
            self._look_around()
            try:
                items = await self._next_items(queue, desk)
                break
            except TemporaryError:  # rewritten meanwhile
                self.queues.drop_all()
        else:
            raise TemporaryError(f"{self.scope.out.captions} is being rewritten; try again")
        for item in items:
            keep(self._items, item.id, item, ITEMS)
            self.pictures.prepare(item.row["image_uri"])
        desk.held = {item.image for item in items}
        return Window(items, queue.remaining, len(queue))

    async def decide(self, desk: Desk, item: Item, decision: str, text: str) -> Review:
        """Save a decision; raise Refused if it does not fit, OSError if it cannot be saved."""
        review = await self._save([item.review(decision, text)])
        desk.steps.append(Step(item, review))
        self.saved += 1
        await self.queues.set_gone([review], gone=True)
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
            await self.queues.set_gone([step.review], gone=False)
        return step

    async def finish(self) -> None:
        """Wait until all decisions that have arrived are saved."""
        async with self._unsaved:
            return

    async def _save(self, reviews: list[Review]) -> Review:
        async with self._unsaved:
            (saved,) = await self._saving.run(self.writer.add, reviews)
        return saved

    async def _next_items(self, queue: Queue, desk: Desk) -> list[Item]:
        """Read the next images: no skipped ones or those of other windows while there are more."""
        others = [o.held for o in self._desks.values() if o is not desk and not o.is_away]
        numbers = self._next(queue, desk.skipped.union(*others)) or self._next(queue, desk.skipped)
        if not numbers:
            desk.skipped.clear()
            numbers = self._next(queue, desk.skipped)
        return await self._read_items(queue, numbers)

    async def _read_items(self, queue: Queue, numbers: Sequence[int]) -> list[Item]:
        """Return entries of a queue; those read last are kept, and not read again."""
        kept = self._entries.setdefault(queue, OrderedDict())
        missing = [number for number in numbers if number not in kept]
        found = {number: kept[number] for number in numbers if number in kept}
        reading = (self._reading.run(read_item, queue, number) for number in missing)
        found |= zip(missing, await asyncio.gather(*reading), strict=True)
        for number, item in found.items():
            keep(kept, number, item, ENTRIES)
        return [found[number] for number in numbers]

    def _next(self, queue: Queue, passed: set[int]) -> list[int]:
        """Return the entries of the next images that are not among those to be passed over."""
        upcoming = queue.upcoming(self._spread if self._others.are_at_work else 0)
        left = (number for number in upcoming if int(queue.image[number]) not in passed)
        return list(islice(left, AHEAD))

    def _look_around(self) -> None:
        """Begin to look at what others do, if the last look was some time ago."""
        if time.monotonic() - self._looked > LOOK_SECONDS and (not self._look or self._look.done()):
            self._look = asyncio.create_task(self._see_others())

    async def _see_others(self) -> None:
        try:
            await self._apply(await self._reading.run(self._others.new))
            version = await self._reading.run(table_version, self.scope.out)
        except (JobError, OSError):
            return  # the store is away for a moment, or a file: the next look will tell
        finally:
            self._looked = time.monotonic()
        self.queues.drop_older(version)

    async def _apply(self, reviews: Sequence[Review]) -> None:
        """Take out what others decided, and put back what they undid."""
        latest = {each.image_uri: each for each in reviews}
        decided = {u: each for u, each in latest.items() if each.decision != Decision.UNDONE}
        for uri in latest.keys() - decided.keys():
            self.by_others.pop(uri, None)
        self.by_others |= decided
        undone = [each for uri, each in latest.items() if uri not in decided]
        for changed, gone in ((undone, False), (list(decided.values()), True)):
            if changed:
                await self.queues.set_gone(changed, gone=gone)
