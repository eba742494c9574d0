"""Fit the maps from search signals to the probability that a caption, or a word, is right."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from captioner.calibration import SIGNALS, WORD_SIGNALS, Calibration, Floats, OperatingPoint
from captioner.caption import Caption
from captioner.lstm.captioner import LstmCaptioner
from captioner.training.evaluation.acceptability import (
    DEFINITION,
    WORD_DEFINITION,
    is_acceptable,
    right_words,
)
from captioner.training.evaluation.evaluate import search_pixels
from captioner.training.evaluation.reliability import Booleans, reliability
from captioner.training.progress import say

FOLDS = 5
NEWTON_STEPS = 20
RIDGE = 1.0  # keeps the weights finite where the signals separate the captions perfectly


def calibrate(
    captioner: LstmCaptioner, pixels: npt.NDArray[np.uint8], references: Sequence[Sequence[str]]
) -> Calibration:
    """Caption images [N, S, S, 3] and fit a calibration to whether their references accept them.

    It has a part for their words, see `fit_words`. This part also chooses among hypotheses, so it
    is fitted first, and once more to the captions of its own choice. The captioner must have no
    calibration yet.
    """
    say(f"calibrating the confidence on {len(pixels):,} validation images")
    searched = list(search_pixels(captioner, pixels))
    found, words = searched, None
    for _ in range(2):
        captions = [caption for result in found for caption in captioner.captions(result)]
        words = fit_words(captions, references)[0]
        found = [captioner.rerank(result, words) for result in searched]
    texts = [caption.text for result in found for caption in captioner.captions(result)]
    values = np.concatenate([captioner.signals(result) for result in found])
    return replace(describe(values, is_acceptable(texts, references)), words=words)


def describe(values: Floats, acceptable: Booleans) -> Calibration:
    """Fit a calibration on all images and add its out-of-sample measures from cross-fitting."""
    calibration = fit(values, acceptable)
    if len(values) < 2 * FOLDS:
        return calibration
    return measured(calibration, cross_fitted(values, acceptable), acceptable)


def fit_words(
    captions: Sequence[Caption], references: Sequence[Sequence[str]]
) -> tuple[Calibration | None, Floats | None]:
    """Fit a calibration to which of the captions' content words are right.

    Also return their confidences [M], one caption after another, out of sample by FOLDS of the
    images. None and None for very few captions, or without both right words and wrong ones.
    """
    right = right_words(captions, references)
    if len(captions) < 2 * FOLDS or right.all() or not right.any():
        return None, None
    images = np.repeat(np.arange(len(captions)), [len(caption.words) for caption in captions])
    words = [word for caption in captions for word in caption.words]
    values = np.array([[word.signals[name] for name in WORD_SIGNALS] for word in words])
    confidence = cross_fitted(values, right, WORD_SIGNALS, images)
    calibration = replace(
        fit(values, right, WORD_SIGNALS),
        acceptable=WORD_DEFINITION,
        data=f"{len(words)} content words of {len(captions)} validation images, "
        f"{right.mean():.1%} of them right",
    )
    return replace(measured(calibration, confidence, right), operating_points=[]), confidence


def measured(calibration: Calibration, confidence: Floats, acceptable: Booleans) -> Calibration:
    """Add the measures of confidences [N] that were found out of sample to a calibration."""
    result = reliability(confidence, acceptable)
    auroc = "unknown" if result.auroc is None else f"{result.auroc:.3f}"
    return replace(
        calibration,
        data=f"{calibration.data}; out of sample, by {FOLDS} folds: AUROC {auroc}, "
        f"ECE {result.ece:.3f} (by chance {result.ece_by_chance:.3f}), "
        f"Brier score {result.brier:.3f}",
        operating_points=operating_points(confidence, acceptable),
    )


def operating_points(confidence: Floats, acceptable: Booleans) -> list[OperatingPoint]:
    """Return a point for every percentage of the captions, from the most confident 5% to all.

    Captions of equal confidence, truncated to four digits, are accepted together.
    """
    cut = np.floor(confidence * 1e4) / 1e4
    ordered = np.sort(cut)[::-1]
    counts = {max(1, len(ordered) * percent // 100) for percent in range(5, 101)}
    return [
        OperatingPoint(
            float(threshold),
            round(float((cut >= threshold).mean()), 4),
            round(float(acceptable[cut >= threshold].mean()), 4),
        )
        for threshold in sorted({ordered[count - 1] for count in counts}, reverse=True)
    ]


def cross_fitted(
    values: Floats,
    acceptable: Booleans,
    signals: Sequence[str] = SIGNALS,
    images: npt.NDArray[np.intp] | None = None,
) -> Floats:
    """Return confidences [N], each from a calibration fitted without its image.

    `images` [N] are the numbers of the images; by default, each value is of another one.
    """
    confidence = np.zeros(len(values))
    numbers = np.arange(len(values)) if images is None else images
    for held_images in folds(numbers[-1] + 1):
        held = held_images[numbers]
        fitted = fit(values[~held], acceptable[~held], signals)
        confidence[held] = fitted.confidence(values[held])
    return confidence


def folds(count: int) -> Iterator[Booleans]:
    """Yield which of `count` images each of the FOLDS holds out, bool [count]."""
    for fold in range(FOLDS):
        yield np.arange(count) % FOLDS == fold


def fit(values: Floats, acceptable: Booleans, signals: Sequence[str] = SIGNALS) -> Calibration:
    """Regress `acceptable` [N] on K signals [N, K] logistically, by Newton's method."""
    mean, scale = values.mean(0), values.std(0)
    scale[scale == 0] = 1
    inputs = np.column_stack([(values - mean) / scale, np.ones(len(values))])
    weights = regress(inputs, acceptable, np.zeros(inputs.shape[1]))
    return Calibration(
        acceptable=DEFINITION,
        data=f"{len(values)} validation images, {acceptable.mean():.1%} of them acceptable",
        signals=list(signals),
        mean=mean.tolist(),
        scale=scale.tolist(),
        weights=weights[:-1].tolist(),
        bias=float(weights[-1]),
    )


def regress(inputs: Floats, outcomes: Booleans, prior: Floats) -> Floats:
    """Return the weights [K] of a logistic regression of outcomes [N] on inputs [N, K].

    RIDGE draws them towards `prior` [K]. Newton's steps are halved as long as they lead upwards.
    """

    def loss(weights: Floats) -> float:
        logits = inputs @ weights
        return float(
            np.logaddexp(0, logits).sum()
            - logits[outcomes].sum()
            + RIDGE / 2 * ((weights - prior) ** 2).sum()
        )

    weights = np.zeros(inputs.shape[1])
    for _ in range(NEWTON_STEPS):
        probability = 1 / (1 + np.exp(-np.clip(inputs @ weights, -50, 50)))
        gradient = inputs.T @ (probability - outcomes) + RIDGE * (weights - prior)
        curvature = (inputs.T * (probability * (1 - probability))) @ inputs
        step = np.linalg.solve(curvature + RIDGE * np.eye(len(weights)), gradient)
        while loss(weights - step) > loss(weights) and np.abs(step).max() > 1e-12:
            step /= 2
        weights -= step
    return weights
