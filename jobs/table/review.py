"""Which captions need review: those below a threshold, given or found in the calibration."""

import json
from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from captioner.jobs.errors import UsageError
from captioner.jobs.storage.backends.backend import open_ahead
from captioner.jobs.storage.backends.paths import OutPath
from captioner.jobs.table.layout import OutFolder
from captioner.jobs.table.read import readable
from captioner.schemas.caption_table import REVIEW


@dataclass(frozen=True)
class Threshold:
    """A threshold: captions with a confidence below `min_confidence` need review.

    If it was found for a `target_precision`, `expected_coverage` is the share of captions that
    need none, on the calibration's images.
    """

    min_confidence: float
    target_precision: float | None = None
    expected_coverage: float | None = None

    def __str__(self) -> str:
        text = f"confidence of at least {self.min_confidence}"
        if self.expected_coverage is None:
            return text
        return (
            f"{text} for a precision of {self.target_precision} "
            f"(on the calibration's images: {self.expected_coverage:.0%} of the captions)"
        )


def needs_review(confidence: float | None, threshold: Threshold | None) -> bool | None:
    """Return whether a caption needs review; None without a confidence or a threshold."""
    if confidence is None or threshold is None:
        return None
    return confidence < threshold.min_confidence


def check_threshold(threshold: Threshold | None, out: OutFolder) -> None:
    """Raise UsageError for a second threshold in a table; rows without one do not count."""
    if threshold is None:
        return
    others = {_threshold_of(path, opened) for path, opened in open_ahead(out.table_files())}
    for other in others - {None, threshold.min_confidence}:
        raise UsageError(
            f"{out.captions} is marked for review below a confidence of {other}, not "
            f"{threshold.min_confidence}: use min_confidence {other}, or write to "
            "another folder"
        )


def _threshold_of(path: OutPath, opened: Callable[[], pa.NativeFile]) -> float | None:
    return min_confidence(readable(path, lambda: pq.read_schema(opened())))


def min_confidence(schema: pa.Schema) -> float | None:
    """Return the threshold of a table's file; None if its captions were not judged."""
    threshold = json.loads((schema.metadata or {}).get(REVIEW, b"null"))
    return threshold["min_confidence"] if threshold else None
