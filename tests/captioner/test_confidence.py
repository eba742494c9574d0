"""Signals and their calibration."""

import math

import numpy as np
import pytest
import torch

from captioner.beam_search import Hypotheses
from captioner.calibration import SIGNALS, Calibration, OperatingPoint
from captioner.errors import CaptionerError
from captioner.signals import signals
from captioner.training.calibrate import cross_fitted, describe, fit, operating_points
from captioner.vocabulary import EOS, PAD


def test_signals_are_those_of_the_best_hypothesis() -> None:
    hypotheses = Hypotheses(
        tokens=torch.tensor([[[5, 6, EOS, PAD], [5, EOS, PAD, PAD]]]),
        token_log_probs=torch.tensor([[[-1.0, -2.0, -0.5, 0.0], [-1.0, -3.0, 0.0, 0.0]]]),
        log_probs=torch.tensor([[-3.5, -4.0]]),
        scores=torch.tensor([[-3.0, -3.8]]),
    )
    log_presence = torch.tensor([[0.1, 0.1, 0.1, 0.1, 0.1, 0.5, 0.25]]).log()
    weights = torch.tensor([0.0, 0.0, 0.0, 0.0, 9.0, 1.0, 3.0])
    found = dict(zip(SIGNALS, signals(hypotheses, log_presence, weights)[0], strict=True))
    assert found["mean_log_prob"] == pytest.approx(-3.5 / 3)
    assert found["sum_log_prob"] == pytest.approx(-3.5)
    assert found["min_log_prob"] == pytest.approx(-2.0)
    assert found["words"] == 2
    assert found["content_log_prob"] == pytest.approx((1 * -1.0 + 3 * -2.0) / 4)
    assert found["presence"] == pytest.approx((1 * 0.5 + 3 * 0.25) / 4)
    assert found["log_presence"] == pytest.approx((math.log(0.5) + 3 * math.log(0.25)) / 4)


def test_a_caption_without_content_words_has_signals_too() -> None:
    alone = Hypotheses(
        tokens=torch.tensor([[[5, EOS]]]),
        token_log_probs=torch.tensor([[[-1.0, -1.0]]]),
        log_probs=torch.tensor([[-2.0]]),
        scores=torch.tensor([[-2.0]]),
    )
    assert np.isfinite(signals(alone, torch.full((1, 6), -1.0), torch.zeros(6))).all()


def test_a_fitted_calibration_recovers_the_probabilities_it_was_drawn_from() -> None:
    random = np.random.default_rng(0)
    values = random.normal(size=(20_000, len(SIGNALS))) * [1, 5, 2, 0.1, 3, 1, 2] + 4
    true = 1 / (1 + np.exp(-(2 * (values[:, 0] - 4) - 0.3 * (values[:, 2] - 4) - 0.5)))
    calibration = fit(values, random.random(len(true)) < true)
    assert np.abs(calibration.confidence(values) - true).mean() < 0.02


def test_confidence_stays_a_probability_for_any_signals() -> None:
    ones = [1.0] * len(SIGNALS)
    calibration = Calibration("good", "here", list(SIGNALS), ones, ones, ones, 0.0)
    extremes = np.array([[-1e9] * len(SIGNALS), [1e9] * len(SIGNALS)])
    low, high = calibration.confidence(extremes)
    assert 0 <= low < 0.01 and 0.99 < high <= 1


def test_a_calibration_of_other_signals_is_refused() -> None:
    with pytest.raises(ValueError, match="signals"):
        Calibration("good", "here", ["mood"], [0.0], [1.0], [1.0], 0.0)


def test_what_the_calibration_says_of_itself_is_out_of_sample() -> None:
    random = np.random.default_rng(2)
    values = random.normal(size=(60, len(SIGNALS)))
    luck = random.random(60) < 0.5  # the signals know nothing of it
    assert np.corrcoef(fit(values, luck).confidence(values), luck)[0, 1] > 0.1
    assert np.corrcoef(cross_fitted(values, luck), luck)[0, 1] < 0.1
    assert "out of sample" in describe(values, luck).data


def test_an_operating_point_says_what_accepting_from_its_confidence_on_means() -> None:
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


def test_of_the_operating_points_of_a_precision_the_one_of_greatest_coverage_is_taken() -> None:
    points = [(0.9, 0.1, 0.95), (0.8, 0.2, 0.85), (0.7, 0.3, 0.9), (0.1, 1.0, 0.5)]
    ones = [1.0] * len(SIGNALS)
    calibration = Calibration(
        "good", "here", list(SIGNALS), ones, ones, ones, 0.0, [OperatingPoint(*p) for p in points]
    )
    assert calibration.for_precision(0.9) == (0.7, 0.3, 0.9)
    assert calibration.for_precision(0.4).coverage == 1
    with pytest.raises(CaptionerError, match=r"0\.99.*best known is 0\.950"):
        calibration.for_precision(0.99)
