"""Signals of a caption's hypotheses -> the calibrated probability that it is acceptable.

What "acceptable" means, and on which images the calibration was fitted, is part of
`Calibration` and so of `calibration.json`. The map is a logistic regression over standardised
signals (Platt 1999).
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from captioner.beam_search import Hypotheses
from captioner.errors import CaptionerError
from captioner.vocabulary import PAD

Floats = npt.NDArray[np.float64]

SIGNALS = (
    "mean_log_prob",
    "sum_log_prob",
    "min_log_prob",
    "words",
    "content_log_prob",
    "presence",
    "log_presence",
)


def signals(hypotheses: Hypotheses, log_presence: Tensor, weights: Tensor) -> Floats:
    """The signals of each image's best hypothesis: [N, len(SIGNALS)].

    Mean, sum and minimum are over the natural log-probabilities of its tokens, EOS included. The
    last three are means over its content words, weighted by how much each says: `weights` [V],
    zero for words that are none. Of `log_presence` [N, V] they take the words said, as shares and
    as logarithms.
    """
    log_probs, tokens = hypotheses.token_log_probs[:, 0].double(), hypotheses.tokens[:, 0]  # [N, T]
    length = (tokens != PAD).sum(1).clamp(min=1)
    total = log_probs.sum(1)
    shares = weights.double()[tokens]
    shares = shares / shares.sum(1, keepdim=True).clamp(min=1e-9)
    present = log_presence.double().gather(1, tokens)
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


class OperatingPoint(NamedTuple):
    """What it means to accept the captions of at least some confidence, on images not fitted on."""

    confidence: float
    coverage: float  # their share of all captions
    precision: float  # the share of them that is acceptable


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
    operating_points: list[OperatingPoint] = field(default_factory=list)  # by coverage

    def __post_init__(self) -> None:
        if tuple(self.signals) != SIGNALS:
            raise ValueError(f"signals must be {', '.join(SIGNALS)}")
        if not len(self.mean) == len(self.scale) == len(self.weights) == len(SIGNALS):
            raise ValueError("mean, scale and weights need a value for each signal")
        points = [OperatingPoint(*point) for point in self.operating_points]  # lists, from JSON
        object.__setattr__(self, "operating_points", points)

    def confidence(self, values: Floats) -> Floats:
        """Probabilities [N] in [0, 1] for signals [N, len(SIGNALS)]."""
        standardised = (values - self.mean) / self.scale
        logits = standardised @ np.asarray(self.weights) + self.bias
        return 1 / (1 + np.exp(-np.clip(logits, -50, 50)))

    def for_precision(self, precision: float) -> OperatingPoint:
        """The operating point of greatest coverage that has at least this precision.

        Raises CaptionerError, naming the best there is, where none has.
        """
        good = [point for point in self.operating_points if point.precision >= precision]
        if good:
            return max(good, key=lambda point: point.coverage)
        if not self.operating_points:
            raise CaptionerError("the calibration has no operating points: calibrate anew")
        best = max(self.operating_points, key=lambda point: point.precision)
        raise CaptionerError(
            f"no confidence gives a precision of {precision:g}: the best known is "
            f"{best.precision:.3f}, at confidence {best.confidence:.3f}"
        )
