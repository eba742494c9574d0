"""Fitting a calibration, and measuring it out of sample."""

import numpy as np
import pytest

from captioner.calibration import SIGNALS
from captioner.training.calibrate import cross_fitted, describe, fit, operating_points


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
