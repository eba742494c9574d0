"""The settings of a job that its workers need, and the review threshold."""

from dataclasses import dataclass, field
from pathlib import Path

from captioner.calibration import Calibration, read_calibration
from captioner.errors import CaptionerError
from captioner.jobs.config import JobConfig
from captioner.jobs.errors import UsageError
from captioner.jobs.storage.filesystems import StorageOptions
from captioner.jobs.table.threshold import Threshold
from captioner.model_directory import CALIBRATION, find_checkpoint
from captioner.search_options import SearchOptions


def choose_threshold(config: JobConfig) -> Threshold | None:
    """Return the job's threshold, given or found in the calibration, or None.

    Raise UsageError if the checkpoint has no calibration, or no threshold for the target precision.
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
            f"{directory} has no {CALIBRATION}, so its captions have no confidence: omit "
            "min_confidence and target_precision, or choose a checkpoint that has one"
        )
    return calibration


@dataclass(frozen=True)
class WorkerSettings:
    """The settings that workers need; all fields but `threshold` are those of JobConfig."""

    checkpoint: str
    device: str
    search: SearchOptions
    batch_size: int
    max_bytes: int
    threshold: Threshold | None = None
    embeddings: bool = False
    storage_options: StorageOptions = field(default_factory=dict, repr=False)


def worker_settings(config: JobConfig, threshold: Threshold | None = None) -> WorkerSettings:
    """Return the settings that the workers of a job need."""
    return WorkerSettings(
        checkpoint=str(config.checkpoint),
        device=config.device,
        search=config.search,
        batch_size=config.batch_size,
        max_bytes=config.max_bytes,
        threshold=threshold,
        embeddings=config.embeddings,
        storage_options=config.storage_options,
    )
