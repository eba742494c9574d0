"""Fit the confidence of any captioner, alone and beside another one, from what they said."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from captioner.calibration import BESIDE_SIGNALS, SIGNALS, Calibration, Floats
from captioner.confidence import log_odds, own_signals, signals_beside
from captioner.errors import CaptionerError
from captioner.training.evaluation.calibrate import cross_fitted, fit, fit_words, folds, measured
from captioner.training.evaluation.evaluate import Confidence
from captioner.training.evaluation.reliability import Booleans
from captioner.training.evaluation.spoken import Spoken

MIN_IMAGES = 50


def fit_confidence(spoken: Spoken) -> tuple[Calibration, Confidence]:
    """Fit a calibration to captions, with a part `beside` the first captions where there are some.

    It has a part for `words` if the captions tell of them. Its signals are those that all captions
    have. The confidences are out of sample, by FOLDS. Raises CaptionerError for too few captions,
    or if all are alike.
    """
    captions, acceptable = spoken.captions, spoken.acceptable
    require_enough(len(captions))
    if acceptable.all() or not acceptable.any():
        raise CaptionerError(
            f"{acceptable.sum()} of {len(captions)} captions are acceptable: calibrating needs "
            "images with good captions and images with bad ones"
        )
    names, own = _table([own_signals(caption) for caption in captions], SIGNALS)
    alone = cross_fitted(own, acceptable, names)
    calibration = measured(fit(own, acceptable, names), alone, acceptable)
    words, of_words = fit_words(captions, spoken.references)
    calibration = replace(calibration, words=words)
    if spoken.first is None:
        return calibration, Confidence(alone, None, of_words)
    pairs = zip(captions, spoken.first, strict=True)
    signals = [signals_beside(one, other.text, other.confidence) for one, other in pairs]
    beside, confidence = _fit_beside(calibration, own, signals, acceptable)
    return replace(calibration, beside=beside), Confidence(alone, confidence, of_words)


def require_enough(images: int) -> None:
    """Raise CaptionerError if there are too few images to calibrate a confidence."""
    if images < MIN_IMAGES:
        raise CaptionerError(f"{images} captions are too few to calibrate: give {MIN_IMAGES}")


def _fit_beside(
    alone: Calibration, own: Floats, signals: Sequence[Mapping[str, float]], acceptable: Booleans
) -> tuple[Calibration, Floats]:
    """Return the calibration that knows of the first captions, and its confidences out of sample.

    `own` [N, K] are the signals of the calibration `alone`.
    """
    names, values = _table([{"log_odds": 0.0, **each} for each in signals], BESIDE_SIGNALS)

    def with_odds(alone: Calibration) -> Floats:
        values[:, names.index("log_odds")] = log_odds(alone.confidence(own))
        return values.copy()

    confidence = np.zeros(len(own))
    for held in folds(len(own)):
        inputs = with_odds(fit(own[~held], acceptable[~held], alone.signals))
        part = fit(inputs[~held], acceptable[~held], names)
        confidence[held] = part.confidence(inputs[held])
    fitted = fit(with_odds(alone), acceptable, names)
    return measured(fitted, confidence, acceptable), confidence


def _table(
    signals: Sequence[Mapping[str, float]], known: Sequence[str]
) -> tuple[tuple[str, ...], Floats]:
    """Return the names of the signals that all images have, and their values [N, K]."""
    names = tuple(name for name in known if all(name in of_image for of_image in signals))
    return names, np.array([[of_image[name] for name in names] for of_image in signals])
