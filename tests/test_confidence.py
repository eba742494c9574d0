"""Signals and their calibration."""

import numpy as np
import pytest
import torch

from captioner.beam_search import NEVER, Hypotheses
from captioner.confidence import SIGNALS, Calibration, signals
from captioner.training.calibrate import cross_fitted, describe, fit
from captioner.vocabulary import EOS, PAD


def test_signals_are_those_of_the_best_hypothesis() -> None:
    hypotheses = Hypotheses(
        tokens=torch.tensor([[[5, 6, EOS, PAD], [5, EOS, PAD, PAD]]]),
        token_log_probs=torch.tensor([[[-1.0, -2.0, -0.5, 0.0], [-1.0, -3.0, 0.0, 0.0]]]),
        log_probs=torch.tensor([[-3.5, -4.0]]),
        scores=torch.tensor([[-3.0, -3.8]]),
    )
    found = dict(zip(SIGNALS, signals(hypotheses)[0], strict=True))
    assert found["mean_log_prob"] == pytest.approx(-3.5 / 3)
    assert found["sum_log_prob"] == pytest.approx(-3.5)
    assert found["min_log_prob"] == pytest.approx(-2.0)
    assert found["margin"] == pytest.approx(0.8)
    assert found["words"] == 2


def test_a_single_hypothesis_has_no_margin() -> None:
    alone = Hypotheses(
        tokens=torch.tensor([[[5, EOS], [PAD, PAD]]]),
        token_log_probs=torch.zeros(1, 2, 2),
        log_probs=torch.tensor([[-1.0, NEVER]]),
        scores=torch.tensor([[-1.0, NEVER]]),
    )
    assert signals(alone)[0, SIGNALS.index("margin")] == 0


def test_a_fitted_calibration_recovers_the_probabilities_it_was_drawn_from() -> None:
    random = np.random.default_rng(0)
    values = random.normal(size=(20_000, len(SIGNALS))) * [1, 5, 2, 0.1, 3] + 4
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
