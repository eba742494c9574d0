"""Fit a calibration again to the judgements of people who reviewed captions (Platt 1999)."""

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from captioner.calibration import Calibration, Floats, save_calibration
from captioner.errors import CaptionerError
from captioner.training.evaluation.calibrate import FOLDS, operating_points, regress
from captioner.training.evaluation.reliability import Booleans, reliability

MIN_JUDGEMENTS = 50
DEFINITION = "a person who reviewed the caption accepted it as it stands"
_AS_IT_IS = np.array([1.0, 0.0])  # slope and intercept


def recalibrate(calibration: Calibration, confidence: Floats, acceptable: Booleans) -> Calibration:
    """Return a calibration fitted to judgements [N] of captions, given their confidence [N] by it.

    It scales and shifts the log-odds of the old one, so captions keep their order. Raises
    CaptionerError for fewer than MIN_JUDGEMENTS, or if all are alike.
    """
    if len(confidence) < MIN_JUDGEMENTS or acceptable.all() or not acceptable.any():
        raise CaptionerError(
            f"{len(confidence)} judgements, {acceptable.sum()} of them good, are too few to "
            f"recalibrate: review at least {MIN_JUDGEMENTS} captions, right and wrong ones"
        )
    inputs = np.column_stack([_log_odds(confidence), np.ones(len(confidence))])
    slope, intercept = regress(inputs, acceptable, _AS_IT_IS)
    held_out = _cross_fitted(inputs, acceptable)
    before, after = reliability(confidence, acceptable), reliability(held_out, acceptable)
    return replace(
        rescaled(calibration, slope, intercept),
        acceptable=DEFINITION,
        data=f"{len(confidence)} captions judged by people, {acceptable.mean():.1%} of them "
        f"acceptable; ECE {before.ece:.3f} before, {after.ece:.3f} after, out of sample by "
        f"{FOLDS} folds (by chance {after.ece_by_chance:.3f}); before: {calibration.data}",
        operating_points=operating_points(held_out, acceptable),
    )


def rescaled(calibration: Calibration, slope: float, intercept: float) -> Calibration:
    """Return a calibration with scaled and shifted log-odds, also beside another captioner."""
    beside = calibration.beside
    if beside is not None:
        beside = rescaled(_for_odds(beside, slope, intercept), slope, intercept)
        beside = replace(beside, acceptable=DEFINITION, operating_points=[])
    return replace(
        calibration,
        weights=[slope * weight for weight in calibration.weights],
        bias=slope * calibration.bias + intercept,
        beside=beside,
    )


def _for_odds(beside: Calibration, slope: float, intercept: float) -> Calibration:
    """Return a calibration that takes scaled and shifted log-odds of the caption's own confidence.

    Its standardised signals stay as they were, and thereby what it makes of them.
    """
    at = beside.signals.index("log_odds")
    mean, scale = list(beside.mean), list(beside.scale)
    mean[at], scale[at] = slope * mean[at] + intercept, slope * scale[at]
    return replace(beside, mean=mean, scale=scale)


def save_recalibrated(model: Path, calibration: Calibration, directory: Path) -> None:
    """Write a model directory that has the files of another and a new calibration.

    It appears whole. Raises CaptionerError if `directory` exists or cannot be written.
    """
    if directory.exists():
        raise CaptionerError(f"{directory} exists: name a new folder for the recalibrated model")
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=directory.parent) as folder:
            copy = Path(folder) / directory.name
            shutil.copytree(model, copy)
            save_calibration(copy, calibration)
            copy.rename(directory)
    except OSError as error:
        raise CaptionerError(f"cannot write {directory}: {error}") from error


def _log_odds(probability: Floats) -> Floats:
    clipped = np.clip(probability, 1e-9, 1 - 1e-9)
    return np.log(clipped / (1 - clipped))


def _cross_fitted(inputs: Floats, acceptable: Booleans) -> Floats:
    """Return probabilities [N], each from a fit without its fold; folds are drawn at random."""
    fold = np.random.default_rng(0).permutation(len(inputs)) % FOLDS
    probability = np.zeros(len(inputs))
    for number in range(FOLDS):
        held = fold == number
        weights = regress(inputs[~held], acceptable[~held], _AS_IT_IS)
        probability[held] = 1 / (1 + np.exp(-np.clip(inputs[held] @ weights, -50, 50)))
    return probability
