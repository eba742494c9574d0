"""Which captions need review: those below a threshold, given or found in the calibration."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from captioner.calibration import Calibration, read_calibration
from captioner.errors import CaptionerError
from captioner.model_directory import CALIBRATION, find_checkpoint
from jobs.config import JobConfig
from jobs.errors import UsageError
from jobs.folders import OutFolder
from jobs.store import OutPath, Source, sources
from jobs.table import readable
from schemas.caption_table import REVIEW


@dataclass(frozen=True)
class Threshold:
    """Captions with a confidence below `min_confidence` need review.

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


def choose_threshold(config: JobConfig) -> Threshold | None:
    """The threshold that a job is given or that its calibration has for it, None without either.

    Raises UsageError if the checkpoint has no calibration, or no threshold of that precision.
    """
    try:
        if config.min_confidence is not None:
            _calibration(config.checkpoint)  # without it, no caption would have a confidence
            return Threshold(config.min_confidence)
        if config.target_precision is not None:
            point = _calibration(config.checkpoint).for_precision(config.target_precision)
            return Threshold(point.confidence, config.target_precision, point.coverage)
    except CaptionerError as error:
        raise UsageError(str(error)) from error
    return None


def _calibration(checkpoint: str | Path) -> Calibration:
    directory = find_checkpoint(checkpoint)
    calibration = read_calibration(directory)
    if calibration is None:
        raise UsageError(
            f"{directory} has no {CALIBRATION}, so its captions have no confidence: give neither "
            "min_confidence nor target_precision, or a checkpoint that has one"
        )
    return calibration


def needs_review(confidence: float | None, threshold: Threshold | None) -> bool | None:
    """Whether a caption needs review; None if nothing can be said."""
    if confidence is None or threshold is None:
        return None
    return confidence < threshold.min_confidence


def check_threshold(threshold: Threshold | None, out: OutFolder) -> None:
    """Refuse a second threshold in a table: `needs_review` means one thing in all its rows.

    Rows of runs without a threshold do not count: they say null. Raises UsageError.
    """
    if threshold is None:
        return
    others = {_threshold_of(path, opened) for path, opened in sources(out.table_files())}
    for other in others - {None, threshold.min_confidence}:
        raise UsageError(
            f"{out.captions} is marked for review below a confidence of {other}, not "
            f"{threshold.min_confidence}: go on with min_confidence {other}, or write to "
            "another folder"
        )


def _threshold_of(path: OutPath, opened: Callable[[], Source]) -> float | None:
    return min_confidence(readable(path, lambda: pq.read_schema(opened())))


def min_confidence(schema: pa.Schema) -> float | None:
    """The threshold of a table's file, None if its captions were not judged."""
    threshold = json.loads((schema.metadata or {}).get(REVIEW, b"null"))
    return threshold["min_confidence"] if threshold else None
