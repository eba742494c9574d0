"""The record of a run: what has been done so far, the events, and finally the report."""

import json
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta

from captioner.budget import Spending
from captioner.jobs.clock import steady_seconds
from captioner.jobs.execution.record.at_work import AtWork
from captioner.jobs.execution.record.examples import Examples
from captioner.jobs.execution.record.progress import ENDED, LISTING, STARTING, Moment
from captioner.jobs.execution.tasks.task import PartitionResult
from captioner.jobs.messages import note
from captioner.jobs.planning.plan import Plan
from captioner.jobs.table.threshold import Threshold
from captioner.jobs.table.writer import Writer
from captioner.schemas.caption_table import Status
from captioner.schemas.job_report import DECLINED, JobReport, JudgedGate, Quality

EVENTS_SECONDS = 60.0  # between uploads of the events: a store cannot append to a file


@dataclass
class Recorder:
    """The counts of one run, with the names that JobReport has, and its events.

    Tasks at work count in `moment` alone, and only while they are at work: an image of a task that
    fails is not counted twice.
    """

    writer: Writer
    source: str | Sequence[str]
    skipped: Mapping[str, int]
    threshold: Threshold | None = None
    plan: Plan = field(default_factory=Plan)
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    statuses: Counter[str] = field(default_factory=Counter)
    seconds: Counter[str] = field(default_factory=Counter)  # floats
    took: float = 0.0
    partitions: int = 0
    workers: int = 0
    captioner: str | None = None
    precision: str | None = None  # in which it computes
    reused: int = 0
    needs_review: int = 0
    remarked: int = 0
    pruned: int = 0
    stopped: str | None = None  # why images of the plan were left
    is_outage: bool = False
    outages: Mapping[str, int] = field(default_factory=dict)  # images left, by host
    spent: Spending = field(default_factory=Spending)
    examples: Examples = field(default_factory=Examples)
    listed: int = 0
    phase: str = LISTING
    failed_tasks: int = 0
    quality: Quality | None = None
    gates: Sequence[JudgedGate] = ()
    gates_not_judged: Mapping[str, str] = field(default_factory=dict)
    too_many_failures: bool = False
    ended: JobReport | None = None  # its report, once it has ended
    _began: float | None = None  # when the first image was opened
    _committed: float = 0.0  # when the last partition was
    _at_work: AtWork = field(default_factory=AtWork)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _uploaded: float = 0.0
    _started: float = field(default_factory=steady_seconds)

    @property
    def run_id(self) -> str:
        return self.writer.run.run_id

    @property
    def tasks(self) -> dict[str, int]:
        """The number of tasks by state."""
        states = {"committed": self.partitions, "failed": self.failed_tasks}
        return {**states, "at work": len(self._at_work)}

    @property
    def now(self) -> datetime:
        """The time by the clock with which the run began, even if somebody has put it back."""
        return self.started_at + timedelta(seconds=steady_seconds() - self._started)

    @property
    def images(self) -> int:
        return sum(self.statuses.values())

    @property
    def failed(self) -> int:
        return self.images - self.statuses[Status.OK] - self.statuses[DECLINED]

    @property
    def left(self) -> int:
        """The number of images that the run did not get to, or could not fetch."""
        return self.plan.images - self.images if self.stopped else 0

    @property
    def captioning_seconds(self) -> float | None:
        if self._began is None or not self.images:
            return None
        return round(self._committed - self._began, 3)

    def begin(self, key: str, part: str) -> None:
        """Begin to count the images of a task at work."""
        with self._lock:
            self._at_work.begin(key, part)

    def report(self, key: str, done: int | None, image: str | None = None) -> None:
        """Record how many images a task has done, or which one it waits for."""
        with self._lock:
            self._at_work.report(key, done, image)
            if key in self._at_work:
                self._began = self._began or time.monotonic()

    def is_at_work(self, key: str) -> bool:
        """Return whether a task has not been counted or ended yet."""
        return key in self._at_work

    def end(self, key: str) -> None:
        """Forget a task that has ended."""
        with self._lock:
            self._at_work.end(key)

    def moment(self) -> Moment:
        """Return the counts of now or, when all is done, of that time."""
        with self._lock:
            images = self.images + self._at_work.images
            begun = self._began is not None or images > 0
            at = time.monotonic() if self.images < self.plan.images else self._committed
            done = Moment(at, begun, images, self.failed, dict(self.seconds), self.took)
            done = replace(done, waiting=self._at_work.stragglers())
            return replace(done, total=self.plan.images, listed=self.listed, phase=self.phase)

    def add(self, result: PartitionResult, key: str) -> None:
        """Count the partition that the task with this key has committed."""
        with self._lock:
            self._at_work.end(key)
            self._committed = time.monotonic()
            self.statuses.update(result.statuses)
            self.seconds.update(result.seconds)
            self.took += result.took
        self.captioner = result.captioner or self.captioner
        if not result.images:
            return
        self.partitions += 1
        self.reused += result.reused
        self.needs_review += result.needs_review
        self.examples += result.examples
        self.event(
            "committed",
            result.name,
            images=result.images,
            statuses=dict(result.statuses),
            reused=result.reused,
            seconds=rounded(result.seconds),
            took=round(result.took, 3),
        )

    def discard_counts(self) -> None:
        """Forget the partitions counted so far, because their rows have been removed."""
        with self._lock:
            self.statuses.clear()
        self.partitions = self.reused = 0
        self.examples = Examples()

    def event(self, event: str, part: str, **details: object) -> None:
        """Append a line to events.jsonl, and say it to programs."""
        if event == "failed":
            self.failed_tasks += 1
        note(f"part {part} {event}", event, details={"part": part, **details})
        self.keep(event, part=part, **details)

    def keep(self, event: str, **details: object) -> None:
        """Append a line to events.jsonl."""
        line = {"at": self.now.isoformat(), "event": event, **details}
        with self.writer.events.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        if time.monotonic() - self._uploaded > EVENTS_SECONDS:
            self._upload_events()

    def _upload_events(self) -> None:
        if self.writer.events.exists():
            self.writer.storage.put(self.writer.events, self.writer.run.events)
            self._uploaded = time.monotonic()

    def planned(self) -> None:
        """Record that the plan is made, and what it says about the rows that stay."""
        self.phase = STARTING
        counts = {name: n for name, n in asdict(self.plan.counts).items() if n}
        text = f"{self.plan.images:,} images to caption"
        note(text, "planned", details={"images": self.plan.images, **counts})

    @property
    def table_statuses(self) -> dict[str, int] | None:
        """The number of rows of the whole table by status; None in a run for second opinions.

        What the run leaves for a later one is not counted.
        """
        if self.plan.counts.doubted:
            return None
        kept = self.plan.kept + (Counter() if self.pruned else self.plan.kept_vanished)
        return dict(kept + self.statuses)

    def write_report(self, report: JobReport) -> None:
        """Write the report of a run that ends, and its last events."""
        self.ended, self.phase = report, ENDED
        self._upload_events()
        self.writer.write_text(report.to_json() + "\n", self.writer.run.report)


def rounded(seconds: Mapping[str, float]) -> dict[str, float]:
    """Return seconds by stage in milliseconds' precision."""
    return {stage: round(value, 3) for stage, value in seconds.items()}
