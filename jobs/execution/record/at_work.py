"""The tasks at work: how many of their images are done, and which of them wait for one."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

STRAGGLER_SECONDS = 60.0  # without another image done
MOST_STRAGGLERS = 5  # that are named


@dataclass(frozen=True)
class Straggler:
    """A part of the table for which nothing was done for some `seconds`.

    Its task waits for this `image` of another host, if that is known.
    """

    part: str
    seconds: int
    image: str | None = None


@dataclass
class _Task:
    part: str
    done: int = 0
    since: float | None = None  # the last image, by time.monotonic; None before the task has begun
    image: str | None = None


class AtWork:
    """The tasks at work, by key; those of other runs, and ended ones, are ignored."""

    def __init__(self) -> None:
        self._tasks: dict[str, _Task] = {}

    def __contains__(self, key: str) -> bool:
        return key in self._tasks

    def __len__(self) -> int:
        return len(self._tasks)

    @property
    def images(self) -> int:
        """The number of images that are done."""
        return sum(task.done for task in self._tasks.values())

    def begin(self, key: str, part: str) -> None:
        """Add a task that was submitted."""
        self._tasks[key] = _Task(part)

    def report(self, key: str, done: int | None, image: str | None) -> None:
        """Note how many images a task has done, or the image that it waits for."""
        if task := self._tasks.get(key):
            if done is not None:
                task.done, task.since = done, time.monotonic()
            task.image = image

    def end(self, key: str) -> None:
        """Remove a task."""
        self._tasks.pop(key, None)

    def stragglers(self) -> Sequence[Straggler]:
        """Return the tasks that have done nothing for long, the longest first."""
        now = time.monotonic()
        waits = ((now - task.since, task) for task in self._tasks.values() if task.since)
        found = [
            Straggler(task.part, round(seconds), task.image)
            for seconds, task in waits
            if seconds >= STRAGGLER_SECONDS
        ]
        return sorted(found, key=lambda each: -each.seconds)[:MOST_STRAGGLERS]
