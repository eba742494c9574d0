"""What one window of a browser reviews: its filters, its place in the queue, its last steps."""

import time
from collections import deque
from dataclasses import dataclass, field

from captioner.jobs.publish.review.item import Item
from captioner.jobs.publish.review.queue import Filters
from captioner.schemas.review import Review

STEPS = 1000  # that can be undone
AWAY_SECONDS = 600  # after which the images that a window shows are given to others


@dataclass
class Step:
    """A decision about an image, or None for a skipped one."""

    item: Item
    review: Review | None


@dataclass
class Desk:
    """A window of a browser; `skipped` and `held` are images (Item.image)."""

    filters: Filters = field(default_factory=Filters)
    skipped: set[int] = field(default_factory=set)
    held: set[int] = field(default_factory=set)
    steps: deque[Step] = field(default_factory=lambda: deque(maxlen=STEPS))
    seen: float = field(default_factory=time.monotonic)

    @property
    def is_away(self) -> bool:
        return time.monotonic() - self.seen > AWAY_SECONDS
