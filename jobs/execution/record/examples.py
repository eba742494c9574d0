"""Examples of what a run wrote: its surest and least sure captions, the first failure of a kind."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from heapq import nlargest, nsmallest

import pyarrow as pa

from captioner.schemas.caption_table import Status
from captioner.schemas.job_report import CaptionExample, FailedImage

COUNT = 3  # of the surest, and of the least sure captions
COLUMNS = ("image_uri", "status", "error", "caption", "confidence")


@dataclass(frozen=True)
class Examples:
    """A few rows; `failures` has one for each status but ok."""

    failures: Mapping[str, FailedImage] = field(default_factory=dict)
    surest: Sequence[CaptionExample] = field(default_factory=list)
    least_sure: Sequence[CaptionExample] = field(default_factory=list)

    def __add__(self, later: "Examples") -> "Examples":
        return Examples(
            {**later.failures, **self.failures},
            nlargest(COUNT, [*self.surest, *later.surest], key=_confidence),
            nsmallest(COUNT, [*self.least_sure, *later.least_sure], key=_confidence),
        )


def examples_of(rows: pa.Table) -> Examples:
    """Return the examples among rows of the table, which have at least COLUMNS."""
    failures: dict[str, FailedImage] = {}
    captions: list[CaptionExample] = []
    for row in rows.select(COLUMNS).to_pylist():
        status, error, uri = row["status"], row["error"], row["image_uri"]
        if status != Status.OK:
            failures.setdefault(status, FailedImage(image_uri=uri, error=error))
        elif row["confidence"] is not None:
            text, confidence = row["caption"], round(row["confidence"], 4)
            captions.append(CaptionExample(image_uri=uri, caption=text, confidence=confidence))
    return Examples() + Examples(failures, captions, captions)


def _confidence(example: CaptionExample) -> tuple[float, str]:
    return example["confidence"], example["image_uri"]
