"""Calibration: signals of a caption, or of a word of it -> the probability that it is right.

`Calibration`, and so `calibration.json`, records what "acceptable" means and on which images the
calibration was fitted. The map is a logistic regression over standardised signals (Platt 1999).
Which signals, the calibration says by their names: `signals.py` computes those of SIGNALS and of
words, which the LSTM captioner has, `confidence.py` all others. Importing this module does not
import torch.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from captioner.errors import CaptionerError, CheckpointError
from captioner.model_directory import CALIBRATION, read_text

Floats = npt.NDArray[np.float64]

OWN_SIGNALS = ("mean_log_prob", "sum_log_prob", "min_log_prob", "words")  # of any captioner
SIGNALS = (*OWN_SIGNALS, "content_log_prob", "presence", "log_presence")
BESIDE_SIGNALS = ("log_odds", "other_log_odds", "agreement")
WORD_SIGNALS = ("log_prob", "presence", "log_presence", "log_prior", "place")  # of one word
_KNOWN = frozenset((*SIGNALS, *BESIDE_SIGNALS, *WORD_SIGNALS))
_PARTS = ("beside", "words")  # of a calibration that are calibrations


class OperatingPoint(NamedTuple):
    """A threshold of confidence and its effect, measured on images not used for fitting."""

    confidence: float
    coverage: float  # the share of captions with at least this confidence
    precision: float  # the share of those that are acceptable


@dataclass(frozen=True)
class Calibration:
    """A logistic regression from signals to a probability, and the meaning of that probability.

    `beside` is the calibration for images about which another captioner has spoken, too; `words`
    that of single content words, with signals of WORD_SIGNALS.
    """

    acceptable: str  # the definition, in words
    data: str  # the images it was fitted on, in words
    signals: list[str]
    mean: list[float]
    scale: list[float]
    weights: list[float]
    bias: float
    operating_points: list[OperatingPoint] = field(default_factory=list)  # by coverage
    beside: "Calibration | None" = None
    words: "Calibration | None" = None

    def __post_init__(self) -> None:
        if not self.signals or not _KNOWN.issuperset(self.signals):
            raise ValueError(f"signals must be of {', '.join((*SIGNALS, *BESIDE_SIGNALS))}")
        if self.words and not set(WORD_SIGNALS).issuperset(self.words.signals):
            raise ValueError(f"signals of words must be of {', '.join(WORD_SIGNALS)}")
        if not len(self.mean) == len(self.scale) == len(self.weights) == len(self.signals):
            raise ValueError("mean, scale and weights must have one value for each signal")
        numbers = [*self.mean, *self.scale, *self.weights, self.bias]
        if not np.isfinite(numbers).all() or 0 in self.scale:
            raise ValueError("all values must be finite, and those of scale must not be 0")

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Return the calibration that JSON values describe; ValueError or TypeError if none."""
        points = [OperatingPoint(*point) for point in values.get("operating_points", [])]
        parts = {
            name: cls.from_json(values[name]) for name in _PARTS if values.get(name) is not None
        }
        return cls(**{**values, "operating_points": points, **parts})

    def to_json(self) -> dict[str, Any]:
        """Return the calibration as JSON values, with those parts alone that it has."""
        values = asdict(self)
        values["operating_points"] = [list(point) for point in self.operating_points]
        for name in _PARTS:
            part = values.pop(name)
            if part is not None:
                values[name] = getattr(self, name).to_json()
        return values

    def confidence(self, values: Floats) -> Floats:
        """Return probabilities [N] in [0, 1] for values [N, K] of the K `signals`."""
        standardised = (values - self.mean) / self.scale
        logits = standardised @ np.asarray(self.weights) + self.bias
        return 1 / (1 + np.exp(-np.clip(logits, -50, 50)))

    def for_precision(self, precision: float) -> OperatingPoint:
        """Return the operating point of greatest coverage with at least this precision.

        Raises CaptionerError, naming the best precision, if none reaches it.
        """
        good = [point for point in self.operating_points if point.precision >= precision]
        if good:
            return max(good, key=lambda point: point.coverage)
        if not self.operating_points:
            raise CaptionerError("the calibration has no operating points: give a confidence")
        best = max(self.operating_points, key=lambda point: point.precision)
        raise CaptionerError(
            f"no confidence reaches a precision of {precision:g}: the best known is "
            f"{best.precision:.3f}, at confidence {best.confidence:.3f}"
        )


def read_calibration(directory: Path) -> Calibration | None:
    """Read the calibration of a model directory, if it has one; CheckpointError if damaged."""
    path = directory / CALIBRATION
    if not path.is_file():
        return None
    try:
        return Calibration.from_json(json.loads(read_text(path)))
    except (json.JSONDecodeError, AttributeError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: not a calibration ({error})") from error


def save_calibration(directory: Path, calibration: Calibration) -> Path:
    """Write the calibration of a model directory; return its path."""
    path = directory / CALIBRATION
    path.write_text(json.dumps(calibration.to_json(), indent=2) + "\n")
    return path
