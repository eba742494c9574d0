"""Fitting a calibration, and measuring it out of sample."""

import numpy as np
import pytest
from PIL import Image
from skimage import data

from captioner.calibration import SIGNALS, WORD_SIGNALS
from captioner.caption import Caption, Word
from captioner.lstm.captioner import LstmCaptioner
from captioner.options import CaptionerOptions
from captioner.training.evaluation.calibrate import (
    calibrate,
    cross_fitted,
    describe,
    fit,
    fit_words,
    operating_points,
)
from captioner.training.evaluation.evaluate import search_pixels


def test_a_fitted_calibration_recovers_the_probabilities_it_was_drawn_from() -> None:
    random = np.random.default_rng(0)
    values = random.normal(size=(20_000, len(SIGNALS))) * [1, 5, 2, 0.1, 3, 1, 2] + 4
    true = 1 / (1 + np.exp(-(2 * (values[:, 0] - 4) - 0.3 * (values[:, 2] - 4) - 0.5)))
    calibration = fit(values, random.random(len(true)) < true)
    assert np.abs(calibration.confidence(values) - true).mean() < 0.02


def test_the_measures_in_a_calibration_are_out_of_sample() -> None:
    random = np.random.default_rng(2)
    values = random.normal(size=(60, len(SIGNALS)))
    luck = random.random(60) < 0.5  # independent of the signals
    assert np.corrcoef(fit(values, luck).confidence(values), luck)[0, 1] > 0.1
    assert np.corrcoef(cross_fitted(values, luck), luck)[0, 1] < 0.1
    assert "out of sample" in describe(values, luck).data


def test_an_operating_point_has_the_coverage_and_precision_of_its_confidence() -> None:
    random = np.random.default_rng(3)
    confidence = random.random(1000)
    acceptable = random.random(1000) < confidence
    for point in operating_points(confidence, acceptable):
        accepted = confidence >= point.confidence - 1e-4
        assert accepted.mean() == pytest.approx(point.coverage, abs=2e-3)
        assert acceptable[accepted].mean() == pytest.approx(point.precision, abs=5e-3)


def test_captions_of_the_same_confidence_are_accepted_together() -> None:
    acceptable = np.array([True, False] * 20)
    confidence = np.where(np.arange(40) < 10, 0.9, 0.40008)
    points = operating_points(confidence, acceptable)
    assert points == [(0.9, 0.25, 0.5), (0.4, 1.0, 0.5)]


def captions_with_words(
    signals: np.ndarray, right: np.ndarray
) -> tuple[list[Caption], list[list[str]]]:
    """Return captions [N] with words [N, M] that have `log_prob` alone, and references."""
    said = [
        Caption("A text.", words=tuple(word(f"w{n}", value) for n, value in enumerate(of_image)))
        for of_image in signals
    ]
    references = [[" ".join(f"w{n}" for n in np.flatnonzero(of_image))] for of_image in right]
    return said, references


def word(text: str, log_prob: float) -> Word:
    return Word(text, signals={**dict.fromkeys(WORD_SIGNALS, 0.0), "log_prob": log_prob})


def test_a_calibration_of_words_recovers_the_probabilities_they_were_drawn_from() -> None:
    random = np.random.default_rng(4)
    signals = random.normal(size=(1000, 4))
    true = 1 / (1 + np.exp(-(1.5 * signals - 0.5)))
    said, references = captions_with_words(signals, random.random(true.shape) < true)
    calibration, confidence = fit_words(said, references)
    assert calibration is not None and confidence is not None
    assert tuple(calibration.signals) == WORD_SIGNALS
    assert np.abs(confidence - true.ravel()).mean() < 0.03
    assert calibration.data.startswith("4000 content words of 1000 validation images")
    assert "out of sample, by 5 folds" in calibration.data


def test_the_words_of_an_image_are_held_out_together() -> None:
    random = np.random.default_rng(2)
    signals = np.repeat(random.normal(size=(60, 1)), 20, axis=1)
    luck = np.repeat(random.random((60, 1)) < 0.5, 20, axis=1)  # of an image, not of its signal
    _, confidence = fit_words(*captions_with_words(signals, luck))
    assert confidence is not None and np.corrcoef(confidence, luck.ravel())[0, 1] < 0.1


def test_there_is_no_calibration_of_words_without_right_and_wrong_ones_or_for_few_images() -> None:
    signals = np.zeros((20, 2))
    assert fit_words(*captions_with_words(signals, np.ones((20, 2), bool))) == (None, None)
    assert fit_words(*captions_with_words(signals[:, :0], np.ones((20, 0), bool))) == (None, None)
    assert fit_words(*captions_with_words(signals[:3], np.eye(3, 2, dtype=bool))) == (None, None)


def test_a_captioner_is_calibrated_on_what_it_says_once_it_is_calibrated() -> None:
    captioner = LstmCaptioner.open(CaptionerOptions("flickr8k", device="cpu", precision="float32"))
    captioner.calibration = None
    photographs = data.astronaut(), data.chelsea()
    images = [each[9 * n :][:200, 7 * n :][:, :250] for n in range(8) for each in photographs]
    pixels = np.stack([captioner.prepare(Image.fromarray(image)).pixels for image in images])
    captioner.calibration = calibrate(captioner, pixels, [["A woman smiles.", "A cat looks."]] * 16)
    signals = [captioner.signals(found) for found in search_pixels(captioner, pixels)]
    assert np.concatenate(signals).mean(0) == pytest.approx(captioner.calibration.mean)
