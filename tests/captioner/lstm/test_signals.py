"""Signals of the best hypothesis of a search."""

import math

import numpy as np
import pytest
import torch

from captioner.calibration import SIGNALS
from captioner.lstm.beam_search import Hypotheses
from captioner.lstm.signals import compute_signals
from captioner.lstm.vocabulary import EOS, PAD


def test_signals_are_those_of_the_best_hypothesis() -> None:
    hypotheses = Hypotheses(
        tokens=torch.tensor([[[5, 6, EOS, PAD], [5, EOS, PAD, PAD]]]),
        token_log_probs=torch.tensor([[[-1.0, -2.0, -0.5, 0.0], [-1.0, -3.0, 0.0, 0.0]]]),
        log_probs=torch.tensor([[-3.5, -4.0]]),
        scores=torch.tensor([[-3.0, -3.8]]),
    )
    log_presence = torch.tensor([[0.1, 0.1, 0.1, 0.1, 0.1, 0.5, 0.25]]).log()
    weights = torch.tensor([0.0, 0.0, 0.0, 0.0, 9.0, 1.0, 3.0])
    found = dict(zip(SIGNALS, compute_signals(hypotheses, log_presence, weights)[0], strict=True))
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
    assert np.isfinite(compute_signals(alone, torch.full((1, 6), -1.0), torch.zeros(6))).all()
