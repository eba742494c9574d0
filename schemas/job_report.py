"""The report of a run, as Python and as JSON."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import TypedDict

from captioner.schemas.caption_table import Status

DECLINED = "declined"  # counted like a status: the row of another captioner stayed


class CaptionExample(TypedDict):
    """A caption with its image."""

    image_uri: str
    caption: str
    confidence: float


class FailedImage(TypedDict):
    """An image without a caption, and why it has none."""

    image_uri: str
    error: str


@dataclass(frozen=True)
class JobReport:
    """The report of a run, written to OUT/runs/<run_id>/report.json.

    schemas/README.md explains the fields. `new`, `changed`, `stale`, `retried`, `lacking`, `forced`
    and `doubted` images add up to `planned` and `postponed`; `images` of the planned ones have a
    row now, counted by status. `seconds` are summed over all workers, by stage;
    `captioning_seconds` count from the first image to the last commit, None without images.
    `skipped` counts by reason. `needs_review` is None without a threshold; `remarked` are rows of
    the table that a new threshold marked again. If the captioner `stopped` early, that says why.
    `second` is the report of the second pass of the same job.
    """

    run_id: str
    source: str | Sequence[str]
    table: str
    started_at: datetime
    finished_at: datetime
    exit_code: int
    listed: int = 0
    new: int = 0
    changed: int = 0
    stale: int = 0
    retried: int = 0
    lacking: int = 0
    forced: int = 0
    doubted: int = 0
    already_there: int = 0
    kept_stale: int = 0
    vanished: int = 0
    pruned: int = 0
    duplicates: int = 0
    skipped: Mapping[str, int] = field(default_factory=dict)
    planned: int = 0
    postponed: int = 0
    stopped: str | None = None
    images: int = 0
    statuses: Mapping[str, int] = field(default_factory=dict)
    reused: int = 0
    partitions: int = 0
    workers: int = 0
    images_per_second: float | None = None
    captioning_seconds: float | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)
    captioner: str | None = None
    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost: float = 0.0
    min_confidence: float | None = None
    target_precision: float | None = None
    expected_coverage: float | None = None
    needs_review: int | None = None
    remarked: int = 0
    first_failures: Mapping[str, FailedImage] = field(default_factory=dict)
    surest: Sequence[CaptionExample] = field(default_factory=list)
    least_sure: Sequence[CaptionExample] = field(default_factory=list)
    error: str | None = None
    second: "JobReport | None" = None

    @property
    def sources(self) -> Sequence[str]:
        """The one source of the run, or all of them."""
        return [self.source] if isinstance(self.source, str) else self.source

    @property
    def redone(self) -> int:
        """The number of images with a row that need another one, for whatever reason."""
        return self.listed - self.already_there - self.new

    @property
    def captioned(self) -> int:
        """The number of images of this run that have a caption."""
        return self.statuses.get(Status.OK, 0)

    @property
    def failures(self) -> dict[str, int]:
        """The number of images of this run without a caption, by status."""
        return {
            status: n for status, n in self.statuses.items() if status not in (Status.OK, DECLINED)
        }

    @property
    def declined(self) -> int:
        """The number of images whose row stayed, because a second captioner gave no caption."""
        return self.statuses.get(DECLINED, 0)

    @property
    def failed(self) -> int:
        """The sum of `failures`."""
        return sum(self.failures.values())

    def to_json(self) -> str:
        """Return the report as a JSON object, with times in ISO 8601."""
        return json.dumps(asdict(self), indent=2, default=datetime.isoformat)

    @classmethod
    def from_json(cls, text: str) -> "JobReport":
        """Read what `to_json` wrote."""
        values = json.loads(text)
        for name in ("started_at", "finished_at"):
            values[name] = datetime.fromisoformat(values[name])
        second = values.pop("second", None)
        return cls(**values, second=cls.from_json(json.dumps(second)) if second else None)


_LOADING, _IN_TURN = (
    ("fetch", "decode"),
    (
        *("encode", "search", "generate", "ask"),
        "commit",
    ),
)


def limiting_step(seconds: Mapping[str, float], took: float) -> str | None:
    """Return the stage that the others waited for, given seconds by stage and those of all tasks.

    The network, or a server, and commits take turns. If they were idle most of the time, they
    waited for images, which several threads fetch and decode at the same time. If `took` is 0, it
    is unknown, and the stage that took most time is returned; None without any.
    """
    steps: tuple[str, ...] = (*_LOADING, *_IN_TURN)
    if took:
        busy = sum(seconds.get(step, 0.0) for step in _IN_TURN)
        steps = _LOADING if busy < took / 2 else _IN_TURN
    slowest = max(steps, key=lambda step: seconds.get(step, 0.0))
    return slowest if seconds.get(slowest) else None
