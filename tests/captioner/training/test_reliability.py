"""Calibration error, ranking and the risk-coverage curve, against plain counting."""

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss, roc_auc_score

from captioner.training.evaluation.reliability import reliability


def test_ranking_and_squared_error_agree_with_scikit_learn() -> None:
    random = np.random.default_rng(0)
    confidence = random.random(500).round(2)  # with ties
    acceptable = random.random(500) < confidence
    result = reliability(confidence, acceptable)
    assert result.auroc == pytest.approx(roc_auc_score(acceptable, confidence))
    assert result.brier == pytest.approx(brier_score_loss(acceptable, confidence))


def test_true_probabilities_have_a_small_calibration_error_and_inflated_ones_a_large_one() -> None:
    random = np.random.default_rng(1)
    confidence = random.random(30_000) * 0.5
    acceptable = random.random(30_000) < confidence
    assert reliability(confidence, acceptable).ece < 0.01
    assert reliability(confidence + 0.3, acceptable).ece == pytest.approx(0.3, abs=0.01)


def test_the_error_by_chance_is_that_of_true_probabilities() -> None:
    random = np.random.default_rng(2)
    confidence = random.random(1000)
    errors = []
    for _ in range(50):
        result = reliability(confidence, random.random(1000) < confidence)
        errors.append(result.ece)
    assert result.ece_by_chance == pytest.approx(np.mean(errors), rel=0.1)


def test_bins_hold_all_captions_in_order_of_confidence() -> None:
    random = np.random.default_rng(4)
    confidence, acceptable = random.random(100), random.random(100) < 0.5
    bins = reliability(confidence, acceptable).bins
    assert sum(part.captions for part in bins) == 100
    assert [part.confidence for part in bins] == sorted(part.confidence for part in bins)
    shares = sum(part.acceptable * part.captions for part in bins)
    assert shares == pytest.approx(acceptable.sum())


def test_coverage_counts_the_most_confident_first() -> None:
    confidence = np.linspace(1, 0.1, 10)
    acceptable = np.array([1, 1, 1, 1, 0, 0, 0, 0, 0, 1], dtype=bool)
    result = reliability(confidence, acceptable)
    assert result.acceptable == result.acceptable_at[-1] == 0.5
    assert result.acceptable_at[:5] == (1, 1, 1, 1, 0.8)


def test_captions_of_one_kind_cannot_be_ranked() -> None:
    assert reliability(np.array([0.5, 0.9]), np.array([True, True])).auroc is None


def test_nothing_to_compare_is_an_error() -> None:
    with pytest.raises(ValueError, match="0 confidences"):
        reliability(np.array([]), np.array([], dtype=bool))
