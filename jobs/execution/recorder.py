"""The record of a run: the progress bar, the events, and finally the report."""

import json
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from tqdm import tqdm

from captioner.jobs.errors import ExitCode
from captioner.jobs.execution.task import PartitionResult
from captioner.jobs.planning.plan import Plan
from captioner.jobs.table.threshold import Threshold
from captioner.jobs.table.writer import Writer
from captioner.schemas.caption_table import Status
from captioner.schemas.job_report import JobReport

EVENTS_SECONDS = 60.0  # between uploads of the events: a store cannot append to a file


@dataclass
class Recorder:
    """The counts of one run, with the names that JobReport has, and its events."""

    writer: Writer
    source: str | Sequence[str]
    skipped: Mapping[str, int]
    threshold: Threshold | None = None
    plan: Plan = field(default_factory=Plan)
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    statuses: Counter[str] = field(default_factory=Counter)
    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    partitions: int = 0
    workers: int = 0
    captioner: str | None = None
    reused: int = 0
    needs_review: int = 0
    remarked: int = 0
    pruned: int = 0
    _uploaded: float = 0.0
    _bar: "tqdm[Any] | None" = None

    @property
    def images(self) -> int:
        return sum(self.statuses.values())

    @property
    def failed(self) -> int:
        return self.images - self.statuses[Status.OK]

    @contextmanager
    def progress(self, quiet: bool) -> Iterator[None]:
        """Show a progress bar that counts images, if stderr is a terminal."""
        with tqdm(total=self.plan.images, unit=" images", disable=True if quiet else None) as bar:
            self._bar = bar
            yield

    def add(self, result: PartitionResult) -> None:
        """Count a committed partition."""
        self.statuses.update(result.statuses)
        for stage, seconds in result.seconds.items():
            self.seconds[stage] += seconds
        self.partitions += 1
        self.captioner = result.captioner or self.captioner
        self.reused += result.reused
        self.needs_review += result.needs_review
        counts = {"statuses": dict(result.statuses), "reused": result.reused}
        self.event("committed", result.name, images=result.images, **counts)
        if self._bar is not None:
            self._bar.set_postfix(failed=self.failed, refresh=False)
            self._bar.update(result.images)

    def discard_counts(self) -> None:
        """Forget the partitions counted so far, because their rows have been removed."""
        self.statuses.clear()
        self.partitions = self.reused = 0

    def event(self, event: str, part: str, **details: object) -> None:
        """Append a line to events.jsonl."""
        line = {"at": datetime.now(UTC).isoformat(), "event": event, "part": part, **details}
        with self.writer.events.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        if time.monotonic() - self._uploaded > EVENTS_SECONDS:
            self._upload_events()

    def _upload_events(self) -> None:
        if self.writer.events.exists():
            self.writer.storage.put(self.writer.events, self.writer.run.events)
            self._uploaded = time.monotonic()

    def write_report(self, code: ExitCode, error: str | None = None) -> JobReport:
        """Write and return the report of a run that ends now."""
        now = datetime.now(UTC)
        took = (now - self.started_at).total_seconds()
        report = JobReport(
            run_id=self.writer.run.run_id,
            source=self.source,
            table=str(self.writer.out.captions),
            started_at=self.started_at,
            finished_at=now,
            exit_code=int(code),
            **asdict(self.plan.counts),
            pruned=self.pruned,
            skipped=dict(self.skipped),
            planned=self.plan.images,
            postponed=self.plan.postponed,
            images=self.images,
            statuses=dict(self.statuses),
            reused=self.reused,
            partitions=self.partitions,
            workers=self.workers,
            images_per_second=round(self.images / took, 2) if self.images else None,
            seconds={stage: round(value, 3) for stage, value in self.seconds.items()},
            captioner=self.captioner,
            **self._review(),
            remarked=self.remarked,
            error=error,
        )
        self._upload_events()
        self.writer.write_text(report.to_json() + "\n", self.writer.run.report)
        return report

    def _review(self) -> dict[str, Any]:
        if self.threshold is None or self.threshold.min_confidence is None:
            return {}
        values = asdict(self.threshold)
        del values["since"]
        return {**values, "needs_review": self.needs_review}
