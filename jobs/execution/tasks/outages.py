"""Outages of hosts: their images wait until all else is done, are tried once more, then left."""

from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING

from captioner.jobs.errors import MACHINE, HostBusy, HostDown
from captioner.jobs.execution.tasks.task import Outage, PartitionResult, Task, continued
from captioner.jobs.messages import how_many
from captioner.schemas.caption_table import Status

if TYPE_CHECKING:
    from captioner.jobs.execution.record.recorder import Recorder

MOST_TASKS = 10_000  # that wait: the driver's memory does not grow with the collection
MOST_TROUBLES = 10_000  # hosts whose trouble is remembered, and whose images are counted apart
OTHERS = "other hosts"
MOST_SUSPECTS = 100  # hosts that each task hears of
MOST_NAMED = 5  # in the message
LATE_TO_STOP = 10  # one after the other, with no success between


class Outages:
    """The tasks whose images were left because their hosts did not answer, or refused requests."""

    def __init__(self) -> None:
        self._waiting: deque[Task] = deque()
        self._is_over = False  # whether all else is done
        self._troubles: dict[str, Outage] = {}  # by host, the last at the end
        self._late = 0  # images in succession that took too long to open
        self.left: Counter[str] = Counter()  # images that stay without a row, by host

    @property
    def suspects(self) -> Mapping[str, str]:
        """Why hosts are taken for down, for workers that have not asked them yet.

        A busy host is none: it may refuse the first request of a worker, and answer the next.
        """
        last = reversed(self._troubles.items())
        down = ((host, outage.reason) for host, outage in last if not outage.is_busy)
        return dict(islice(down, MOST_SUSPECTS))

    @property
    def has_waiting(self) -> bool:
        """Whether a task will be run again."""
        return bool(self._waiting)

    def follow_up(self, task: Task, result: PartitionResult) -> list[Task]:
        """Return the task for the images that were left; none if it has to wait."""
        if not result.left:
            return []
        following = continued(task, result.left)
        if sum(outage.images for outage in result.down.values()) < len(result.left):
            return [following]
        self._add(following, result.down)
        return []

    def _add(self, task: Task, down: Mapping[str, Outage]) -> None:
        """Keep the task for the images that were left, or count them if they had their chance."""
        for host, outage in down.items():
            self._troubles.pop(host, None)
            self._troubles[host] = outage
        while len(self._troubles) > MOST_TROUBLES:
            del self._troubles[next(iter(self._troubles))]
        if self._is_over or len(self._waiting) >= MOST_TASKS:
            self._count(down)
        else:
            is_whole = task.images == task.stop - task.start
            self._waiting.append(replace(task, left=None) if is_whole else task)

    def _count(self, down: Mapping[str, Outage]) -> None:
        for host, outage in down.items():
            is_named = host in self.left or len(self.left) < MOST_TROUBLES
            self.left[host if is_named else OTHERS] += outage.images

    def next(self, *, all_else_is_done: bool) -> Task | None:
        """Return a task to run again; None before all else is done, and in the end."""
        self._is_over = self._is_over or all_else_is_done
        return self._waiting.popleft() if self._is_over and self._waiting else None

    def stop_if_all_are_late(
        self, task: Task, result: PartitionResult, recorder: "Recorder"
    ) -> None:
        """Record an outage when many images in succession took too long to open."""
        if result.statuses.get(Status.OK):
            self._late = 0
        self._late += task.status is Status.TIMEOUT
        if self._late >= LATE_TO_STOP:
            recorder.is_outage = True
            recorder.stopped = (
                f"{self._late} images, one after the other, took too long to open: a disk or a "
                "mount may not answer any more"
            )

    def stop(self, recorder: "Recorder") -> None:
        """Record which hosts did not give all their images, when all else is done."""
        if self.left:
            recorder.outages, recorder.is_outage = dict(self.left), True
            recorder.stopped = "; ".join(filter(None, (recorder.stopped, self._message())))

    def _message(self) -> str:
        hosts = [pair for pair in self.left.most_common(MOST_NAMED + 1) if pair[0] != OTHERS]
        named = [
            f"{said_of(host, self._troubles.get(host))} ({how_many(images, 'image')})"
            for host, images in hosts[:MOST_NAMED]
        ]
        others = len(self.left) - len(named)
        least = "at least " if OTHERS in self.left else ""
        return "; ".join(
            [*named, *([f"and {least}{how_many(others, 'more host')}"] if others else [])]
        )


def outages_of(errors: Iterable[HostDown]) -> dict[str, Outage]:
    """Count the images that were left by host; one is busy if it refused all of them."""
    by_kind = sorted(errors, key=lambda error: not isinstance(error, HostBusy))
    images = Counter(error.host for error in by_kind)
    last = {error.host: error for error in by_kind}
    return {
        host: Outage(str(error), images[host], isinstance(error, HostBusy))
        for host, error in last.items()
    }


def said_of(host: str, outage: Outage | None) -> str:
    """Return what happens with a host, and why, if that is known."""
    if outage and outage.is_busy:
        remedy = "use fewer workers, or run again later"
        return f"{host} refuses requests: {outage.reason}: {remedy}"
    what = "is at fault" if host == MACHINE else "does not answer"
    return f"{host} {what}{f': {outage.reason}' if outage else ''}"
