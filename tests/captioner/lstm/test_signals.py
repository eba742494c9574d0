"""Signals of the best hypothesis of a search."""

import math

import numpy as np
import pytest
import torch

from captioner.calibration import SIGNALS, WORD_SIGNALS
from captioner.lstm.beam_search import Hypotheses
from captioner.lstm.signals import compute_signals, find_content_words
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


def test_each_content_word_of_the_best_hypotheses_has_its_own_signals() -> None:
    hypotheses = Hypotheses(
        tokens=torch.tensor([[[4, 5, 4, 6, EOS]], [[6, EOS, PAD, PAD, PAD]]]),
        token_log_probs=torch.tensor([[[-1.0, -2.0, -3.0, -4.0, -5.0]], [[-0.5, -0.25, 0, 0, 0]]]),
        log_probs=torch.tensor([[-15.0], [-0.75]]),
        scores=torch.tensor([[-9.0], [-0.5]]),
    )
    log_presence = torch.tensor([[0.1, 0.1, 0.1, 0.1, 0.1, 0.5, 0.25], [0.2] * 7]).log()
    log_prior = torch.tensor([0.0, 0.0, 0.0, 0.0, 0.0, -2.0, -math.inf])
    content = torch.tensor([False] * 5 + [True] * 2)
    found = find_content_words(hypotheses, log_presence, log_prior, content)
    assert found.images.tolist() == [0, 0, 1]
    assert found.places.tolist() == [1, 3, 0]
    assert found.tokens.tolist() == [5, 6, 6]
    first, second, third = (dict(zip(WORD_SIGNALS, row, strict=True)) for row in found.signals)
    assert first == pytest.approx(
        {
            "log_prob": -2.0,
            "presence": 0.5,
            "log_presence": math.log(0.5),
            "log_prior": -2.0,
            "place": 1,
        }
    )
    assert (second["log_prob"], third["log_prob"]) == (-4.0, -0.5)
    assert (second["presence"], third["presence"]) == pytest.approx((0.25, 0.2))
    assert np.isfinite(found.signals).all()
