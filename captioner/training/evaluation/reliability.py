"""The reliability of a confidence: calibration error, ranking, risk and coverage."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from captioner.calibration import Floats

Booleans = npt.NDArray[np.bool_]

BINS = 15
COVERAGES = tuple(tenth / 10 for tenth in range(1, 11))
DRAWS = 200


class Bin(NamedTuple):
    """Captions of similar confidence."""

    confidence: float  # their mean
    acceptable: float  # their share
    captions: int


@dataclass(frozen=True)
class Reliability:
    """Measures of how well confidences predict which captions are acceptable.

    `ece` is the expected calibration error over 15 bins of equal mass (Naeini et al. 2015, with the
    bins of Nguyen and O'Connor 2015); `ece_by_chance` is its mean for perfectly calibrated
    confidences, given the number of captions. `brier` is the mean squared error, `auroc` the
    probability that an acceptable caption has a higher confidence than another (None if all or none
    are acceptable). `acceptable_at` is the acceptable share among the most confident 10%, 20% ...
    100%: one minus the risk of the risk-coverage curve.
    """

    acceptable: float
    ece: float
    ece_by_chance: float
    brier: float
    auroc: float | None
    acceptable_at: tuple[float, ...]
    bins: tuple[Bin, ...]


def reliability(confidence: Floats, acceptable: Booleans) -> Reliability:
    """Compare confidences [N] in [0, 1] with outcomes [N]."""
    if not len(confidence) or confidence.shape != acceptable.shape:
        raise ValueError(f"{len(confidence)} confidences and {len(acceptable)} outcomes")
    order = np.argsort(-confidence, kind="stable")
    shares = np.cumsum(acceptable[order]) / np.arange(1, len(order) + 1)
    counts = [max(1, round(coverage * len(order))) for coverage in COVERAGES]
    return Reliability(
        acceptable=float(acceptable.mean()),
        ece=_calibration_error(confidence, acceptable),
        ece_by_chance=_error_by_chance(confidence),
        brier=float(((confidence - acceptable) ** 2).mean()),
        auroc=auroc(confidence, acceptable),
        acceptable_at=tuple(float(shares[count - 1]) for count in counts),
        bins=tuple(
            Bin(float(confidence[part].mean()), float(acceptable[part].mean()), len(part))
            for part in _equal_mass(confidence)
        ),
    )


def _equal_mass(confidence: Floats) -> list[npt.NDArray[np.intp]]:
    """Return the indices of the captions in each of BINS bins, by confidence."""
    order = np.argsort(confidence, kind="stable")
    return np.array_split(order, min(BINS, len(order)))


def _calibration_error(confidence: Floats, acceptable: Booleans) -> float:
    """Return the mean gap between confidence and outcome over bins, weighted by their mass."""
    excess = confidence - acceptable
    gaps = [abs(excess[part].sum()) for part in _equal_mass(confidence)]
    return float(sum(gaps) / len(confidence))


def _error_by_chance(confidence: Floats) -> float:
    """Return the mean calibration error of outcomes drawn with the confidences as probabilities."""
    random = np.random.default_rng(0)
    draws = (random.random(len(confidence)) < confidence for _ in range(DRAWS))
    return float(np.mean([_calibration_error(confidence, draw) for draw in draws]))


def auroc(confidence: Floats, acceptable: Booleans) -> float | None:
    """Return the area under the ROC curve, by ranks (Mann and Whitney); ties count half."""
    positives = int(acceptable.sum())
    negatives = len(acceptable) - positives
    if not positives or not negatives:
        return None
    _, places, counts = np.unique(confidence, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[places]
    excess = ranks[acceptable].sum() - positives * (positives + 1) / 2
    return float(excess / (positives * negatives))
