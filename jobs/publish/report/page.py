"""What a report shows, as plain data for its template."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from captioner.jobs.publish.report.charts import Chart


@dataclass(frozen=True)
class Fact:
    """A number that matters, with its name and a remark."""

    name: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Grid:
    """A table; the first cell of each row is its heading."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Section:
    """A heading with sentences, a chart and a grid; `bars` are shares from 0 to 1, one a row."""

    name: str
    title: str
    sentences: Sequence[str] = ()
    chart: Chart | None = None
    grid: Grid | None = None
    bars: Sequence[float] = ()
    details: Sequence[tuple[str, str]] = ()  # summary and text


@dataclass(frozen=True)
class Failures:
    """The images without a caption for one reason, the remedy, and examples: URI and error."""

    title: str
    count: str
    remedy: str
    examples: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Card:
    """An image with its text. `missing` says why there is no `picture`, a data: URL.

    `was` is the caption, if a person decided otherwise; `mark` says what a person did or should do.
    """

    name: str
    text: str
    was: str
    confidence: str
    mark: str
    kind: str  # of the mark: good or warn
    picture: str = ""
    missing: str = ""


@dataclass(frozen=True)
class Page:
    """A report. `state` of the outcome is good, warn or bad."""

    subject: str
    heading: str
    outcome: str
    state: str
    sentences: Sequence[str]
    facts: Sequence[Fact]
    sections: Sequence[Section]
    failures: Sequence[Failures] = ()
    gallery: Sequence[tuple[str, Sequence[Card]]] = ()
    folder: str = ""  # above the names of the images in the gallery
    error: str = ""
    made: str = ""
    after: Sequence[Section] = field(default_factory=list)
