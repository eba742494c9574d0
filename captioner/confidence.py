"""Signals of a caption's hypotheses -> the calibrated probability that it is acceptable.

What "acceptable" means, and on which images the calibration was fitted, is part of
`Calibration` and so of `calibration.json`. The map is a logistic regression over standardised
signals (Platt 1999).
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from captioner.beam_search import Hypotheses
from captioner.vocabulary import PAD

Floats = npt.NDArray[np.float64]

SIGNALS = ("mean_log_prob", "sum_log_prob", "min_log_prob", "margin", "words")


def signals(hypotheses: Hypotheses) -> Floats:
    """The signals of each image's best hypothesis: [N, len(SIGNALS)].

    Mean, sum and minimum are over the natural log-probabilities of its tokens, EOS included;
    `margin` is how far its score lies above the next hypothesis (0 where there is none).
    """
    tokens = hypotheses.token_log_probs[:, 0]  # [N, T]
    said = hypotheses.tokens[:, 0] != PAD
    length = said.sum(1).clamp(min=1)
    total = hypotheses.log_probs[:, 0]
    columns = (total / length, total, tokens.amin(1), _margin(hypotheses.scores), length - 1)
    return torch.stack([column.double() for column in columns], dim=1).cpu().numpy()


def _margin(scores: Tensor) -> Tensor:
    if scores.shape[1] == 1:
        return torch.zeros_like(scores[:, 0])
    margin = scores[:, 0] - scores[:, 1]
    return margin.where(margin.isfinite(), 0.0)


@dataclass(frozen=True)
class Calibration:
    """A logistic regression from signals to a probability, and what that probability is of."""

    acceptable: str  # the definition, in words
    data: str  # what it was fitted on
    signals: list[str]
    mean: list[float]
    scale: list[float]
    weights: list[float]
    bias: float

    def __post_init__(self) -> None:
        if tuple(self.signals) != SIGNALS:
            raise ValueError(f"signals must be {', '.join(SIGNALS)}")
        if not len(self.mean) == len(self.scale) == len(self.weights) == len(SIGNALS):
            raise ValueError("mean, scale and weights need a value for each signal")

    def confidence(self, values: Floats) -> Floats:
        """Probabilities [N] in [0, 1] for signals [N, len(SIGNALS)]."""
        standardised = (values - self.mean) / self.scale
        logits = standardised @ np.asarray(self.weights) + self.bias
        return 1 / (1 + np.exp(-np.clip(logits, -50, 50)))
