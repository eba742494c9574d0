"""Another threshold for a finished table: all its rows are marked again, from their confidence."""

from dataclasses import dataclass
from pathlib import Path

from captioner.calibration import Calibration
from captioner.errors import CaptionerError
from captioner.jobs.errors import UsageError
from captioner.jobs.publish.judgements import calibrations
from captioner.jobs.storage.backends.paths import out_path
from captioner.jobs.storage.failures import job_errors
from captioner.jobs.table.exclusive_writer import exclusive_writer
from captioner.jobs.table.layout import OutFolder
from captioner.jobs.table.threshold import Threshold, settle_threshold


@dataclass(frozen=True)
class Marking:
    """The threshold that a table has now, and the number of rows marked again for it."""

    threshold: Threshold
    rows: int


def mark_table(
    out: str | Path,
    min_confidence: float | None = None,
    target_precision: float | None = None,
) -> Marking:
    """Mark the captions below a confidence for review; with neither number, mark none.

    `target_precision` finds the confidence in the calibration that the table records; if captioners
    differ, the highest. Raise UsageError without a table or a calibration that reaches the
    precision, TemporaryError if a run is at work in OUT.
    """
    folder = OutFolder(out_path(out))
    with job_errors(folder.root):
        folder.require_table()
        threshold = Threshold(min_confidence)
        if target_precision is not None:
            threshold = _threshold_for(folder, target_precision)
    with exclusive_writer(folder.new_run()) as writer:
        _, rows = settle_threshold(threshold, writer)
        return Marking(threshold, rows)


def _threshold_for(out: OutFolder, precision: float) -> Threshold:
    known = dict(calibrations(out))
    if not known:
        raise UsageError(
            f"no file of {out.captions} records a calibration: give a confidence instead"
        )
    try:
        points = [Calibration.from_json(each).for_precision(precision) for each in known.values()]
    except CaptionerError as error:
        raise UsageError(str(error)) from error
    highest = max(points, key=lambda point: point.confidence)
    return Threshold(highest.confidence, precision, highest.coverage)
