"""Signals: the features of a caption, and of its words, from which confidence is computed."""

from typing import NamedTuple

import torch
from torch import Tensor

from captioner.calibration import WORD_SIGNALS, Calibration, Floats
from captioner.lstm.beam_search import Hypotheses
from captioner.lstm.presence import LOG_FLOOR
from captioner.lstm.vocabulary import PAD


class ContentWords(NamedTuple):
    """The M content words of the best hypotheses of some images, in order."""

    images: Tensor  # [M] int64
    places: Tensor  # [M] int64, from 0
    tokens: Tensor  # [M] int64
    signals: Floats  # [M, len(WORD_SIGNALS)]


def compute_signals(hypotheses: Hypotheses, log_presence: Tensor, weights: Tensor) -> Floats:
    """Return the SIGNALS of each image's best hypothesis: float64 [N, len(SIGNALS)].

    Mean, sum and minimum are over the natural log-probabilities of its tokens, EOS included. The
    last three are means over its content words, weighted by `weights` [V] (zero for all other
    words): of their log-probabilities, and of `log_presence` [N, V] as shares and as logarithms.
    """
    log_probs, tokens = hypotheses.token_log_probs[:, 0].double(), hypotheses.tokens[:, 0]  # [N, T]
    length = (tokens != PAD).sum(1).clamp(min=1)
    total = log_probs.sum(1)
    shares = weights[tokens].double()
    shares = shares / shares.sum(1, keepdim=True).clamp(min=1e-9)
    present = log_presence.gather(1, tokens).double()
    columns = (
        total / length,
        total,
        log_probs.amin(1),
        length - 1,
        (shares * log_probs).sum(1),
        (shares * present.exp()).sum(1),
        (shares * present).sum(1),
    )
    return torch.stack([column.double() for column in columns], dim=1).cpu().numpy()


def find_content_words(
    hypotheses: Hypotheses,
    log_presence: Tensor,
    log_prior: Tensor,
    content: Tensor,
    sharing: int = 1,
) -> ContentWords:
    """Return the content words of each image's best hypothesis, with their WORD_SIGNALS.

    `log_presence` is [N / sharing, V]: one row for each `sharing` images, which are the same.
    `log_prior` is [V]; `content` bool [V] marks the content words.
    """
    log_probs, tokens = hypotheses.token_log_probs[:, 0].double(), hypotheses.tokens[:, 0]  # [N, T]
    images, places = content[tokens].nonzero(as_tuple=True)
    words = tokens[images, places]
    present = log_presence[images // sharing, words].double()
    columns = (
        log_probs[images, places],
        present.exp(),
        present,
        log_prior[words].double().clamp(min=LOG_FLOOR),
        places.double(),
    )
    return ContentWords(images, places, words, torch.stack(columns, dim=1).numpy())


def word_confidence(calibration: Calibration, signals: Floats) -> Floats:
    """Return the confidences [M] of words by their signals [M, len(WORD_SIGNALS)]."""
    known = [WORD_SIGNALS.index(name) for name in calibration.signals]
    return calibration.confidence(signals[:, known])
