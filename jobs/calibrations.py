"""Calibrations in OUT: of captioners that no directory holds, or for this collection alone."""

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from captioner.calibration import Calibration
from captioner.errors import CaptionerError
from captioner.jobs.config.job import JobConfig
from captioner.jobs.errors import UsageError
from captioner.jobs.storage.backends.paths import OutPath, out_path
from captioner.jobs.storage.failures import job_errors
from captioner.jobs.table.layout import OutFolder
from captioner.loading import identify_model
from captioner.options import CaptionerOptions


def with_calibration(config: JobConfig) -> JobConfig:
    """Return a job whose captioner has the calibration that OUT holds for it, if there is one.

    Raise the errors of `kept_calibration`.
    """
    return replace(config, calibration=kept_calibration(config.out, config.captioner))


def kept_calibration(out: str | Path, options: CaptionerOptions) -> Mapping[str, Any] | None:
    """Return the values of the calibration that OUT holds for a captioner; None without one.

    Raise UsageError if it is damaged, or if there is no such captioner.
    """
    folder = OutFolder(out_path(out))
    with job_errors(folder.root):
        if not folder.storage.files(folder.calibrations, "*.json"):
            return None
        path = _path(folder, options)
        if not folder.storage.exists(path):
            return None
        return _values(path, folder.storage.read_bytes(path))


def keep_calibration(
    out: str | Path, options: CaptionerOptions, calibration: Calibration
) -> OutPath:
    """Write the calibration of a captioner into OUT, over any other; return its path."""
    folder = OutFolder(out_path(out))
    with job_errors(folder.root):
        path = _path(folder, options)
        folder.storage.make_folder(folder.calibrations)
        with folder.storage.work_folder(folder.calibrations) as scratch:
            text = json.dumps(calibration.to_json(), indent=2) + "\n"
            folder.storage.write(path, text.encode(), scratch)
    return path


def _path(out: OutFolder, options: CaptionerOptions) -> OutPath:
    """Return the file for a captioner, named after its model and settings without it."""
    try:
        captioner = identify_model(replace(options, calibration=None))
    except CaptionerError as error:
        raise UsageError(str(error)) from error
    return out.calibrations / f"{re.sub(r'[^A-Za-z0-9@._-]+', '_', captioner)}.json"


def _values(path: OutPath, content: bytes) -> Mapping[str, Any]:
    try:
        values: Mapping[str, Any] = json.loads(content)
        Calibration.from_json(values)
    except (AttributeError, TypeError, ValueError) as error:
        raise UsageError(f"{path}: not a calibration ({error})") from error
    return values
