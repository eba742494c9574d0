"""The settings of a job that its workers need, and the review threshold."""

from dataclasses import dataclass, field

from captioner.calibration import Calibration
from captioner.errors import CaptionerError
from captioner.jobs.config.job import IMAGE_SECONDS, JobConfig
from captioner.jobs.errors import UsageError
from captioner.jobs.storage.filesystems import StorageOptions
from captioner.jobs.storage.http.access import NO_EXCEPTIONS, AccessRules, access_rules
from captioner.jobs.table.threshold import Threshold
from captioner.loading import check_options, find_calibration
from captioner.model_directory import CALIBRATION
from captioner.options import CaptionerOptions
from captioner.precision import check_precision, expected_device


def check_local_precision(config: JobConfig) -> None:
    """Raise UsageError if workers of this machine would refuse the precision of the job."""
    options = config.captioner
    try:
        check_options(options)
        if config.scheduler or options.kind:
            return
        check_precision(options.precision, expected_device(options.device))
    except CaptionerError as error:
        raise UsageError(str(error)) from error


def choose_threshold(config: JobConfig) -> Threshold | None:
    """Return the job's threshold, given or found in the calibration, or None.

    Raise UsageError if the checkpoint has no calibration, or no threshold for the target precision.
    """
    try:
        if config.min_confidence is not None:
            _calibration(config)  # without it, no caption would have a confidence
            return Threshold(config.min_confidence)
        if config.target_precision is not None:
            point = _calibration(config).for_precision(config.target_precision)
            return Threshold(point.confidence, config.target_precision, point.coverage)
    except CaptionerError as error:
        raise UsageError(str(error)) from error
    return None


def _calibration(config: JobConfig) -> Calibration:
    """Return the calibration of the job's captions, beside former ones if there are such."""
    calibration = find_calibration(config.captioner)
    if calibration is None:
        raise UsageError(
            f"{config.checkpoint} has no {CALIBRATION}, so its captions have no confidence: omit "
            "min_confidence and target_precision, choose a checkpoint that has one, or make one "
            "with `captioner evaluate --calibrate`"
        )
    return (config.is_second_opinion and calibration.beside) or calibration


@dataclass(frozen=True)
class WorkerSettings:
    """The settings that workers need.

    To open an image takes at most `image_timeout` seconds. `batch_size` is None for what the
    captioner likes. With an `identity`, a worker whose captioner has another one captions nothing.
    With a `planned_identity`, a run ends as soon as a captioner has another one.
    """

    captioner: CaptionerOptions
    max_bytes: int
    image_timeout: float = IMAGE_SECONDS
    batch_size: int | None = None
    identity: str | None = None
    planned_identity: str | None = None
    threshold: Threshold | None = None
    second_opinion: bool = False  # about rows of the table
    storage_options: StorageOptions = field(default_factory=dict, repr=False)
    access_rules: AccessRules = NO_EXCEPTIONS


def worker_settings(config: JobConfig, threshold: Threshold | None = None) -> WorkerSettings:
    """Return the settings that the workers of a job need; the access rules are this process's."""
    return WorkerSettings(
        captioner=config.captioner,
        max_bytes=int(config.max_bytes),
        image_timeout=config.image_timeout,
        batch_size=config.batch_size,
        threshold=threshold,
        second_opinion=config.is_second_opinion,
        storage_options=config.storage_options,
        access_rules=access_rules(),
    )
