"""The report of a run, as Python and as JSON."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import TypedDict

from captioner.schemas.caption_table import Status

LOW_CONFIDENCE = 0.02  # pages of text, drawings and noise mostly have less, photographs more
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


class Quality(TypedDict):
    """What the captions of a run are like: shares from 0 to 1, and a mean; None without any.

    `unique` is the number of different captions as a share of all, `top_caption` the share of the
    most frequent one, whose text is `most_frequent`. `low_confidence` is the share of captions with
    a confidence below LOW_CONFIDENCE. `failed` has shares of the images, by status.
    """

    images: int
    captions: int
    unique: float | None
    top_caption: float | None
    most_frequent: str | None
    confidence: float | None
    low_confidence: float | None
    failed: Mapping[str, float]


class JudgedGate(TypedDict):
    """A limit on the quality of a run, with the `value` of this run; which exceeds it by
    `exceeded_by`, or else 0.

    A limit on a change compares with the `former` value, of the run `run_id`; both are None
    otherwise.
    """

    gate: str
    limit: float
    value: float
    former: float | None
    run_id: str | None
    exceeded_by: float


@dataclass(frozen=True)
class JobReport:
    """The report of a run, written to OUT/runs/<run_id>/report.json.

    schemas/README.md explains the fields. `new`, `changed`, `stale`, `retried`, `lacking`, `forced`
    and `doubted` images add up to `planned` and `postponed`; `images` of the planned ones have a
    row now, counted by status. `seconds` are summed over all workers, by stage;
    `captioning_seconds` count from the first image to the last commit, None without images.
    `skipped` counts by reason. `needs_review` is None without a threshold; `remarked` are rows of
    the table that a new threshold marked again. If the captioner `stopped` early, or hosts did not
    answer, that says why; `outages` counts the images that were left by host.
    `table_statuses` count the rows of the whole table, None if they are not known. `quality` is
    measured when a run of any images gets to its end; `gates` are the limits that were judged;
    `gates_not_judged` says why others were not. `too_many_failures` and gates that are exceeded
    lead to exit code 3.
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
    outages: Mapping[str, int] = field(default_factory=dict)
    images: int = 0
    statuses: Mapping[str, int] = field(default_factory=dict)
    reused: int = 0
    partitions: int = 0
    workers: int = 0
    images_per_second: float | None = None
    captioning_seconds: float | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)
    captioner: str | None = None
    precision: str | None = None
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
    table_statuses: Mapping[str, int] | None = None
    quality: Quality | None = None
    gates: Sequence[JudgedGate] = field(default_factory=list)
    gates_not_judged: Mapping[str, str] = field(default_factory=dict)
    too_many_failures: bool = False
    error: str | None = None
    second: "JobReport | None" = None

    def followed_by(self, *others: "JobReport") -> "JobReport":
        """Return the report of a job whose first pass this is, with that of the second."""
        report = self
        for second in others:
            report = replace(report, second=second, exit_code=self.exit_code or second.exit_code)
        return report

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

    def counted(self, *, in_table: bool) -> tuple[int, int]:
        """Return how many images there are, and how many of them failed: in this run, or in all."""
        if in_table and self.table_statuses is not None:
            return sum(self.table_statuses.values()), sum(self.failed_in_table.values())
        return self.images, self.failed

    @property
    def exceeded(self) -> Sequence[JudgedGate]:
        """The gates that the run did not pass."""
        return [gate for gate in self.gates if gate["exceeded_by"]]

    @property
    def failed_in_table(self) -> dict[str, int]:
        """The number of rows of the whole table without a caption, by status."""
        counts = self.table_statuses or {}
        return {status: n for status, n in counts.items() if status != Status.OK and n}

    def to_json(self, indent: int | None = 2) -> str:
        """Return the report as a JSON object, with times in ISO 8601; without indent, one line."""
        return json.dumps(asdict(self), indent=indent, default=datetime.isoformat)

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
        *("gpu", "encode", "search", "generate", "ask"),
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
