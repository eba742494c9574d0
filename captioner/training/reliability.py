"""How far a confidence can be trusted: calibration error, ranking, risk and coverage."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Booleans = npt.NDArray[np.bool_]

BINS = 15
COVERAGES = tuple(tenth / 10 for tenth in range(1, 11))
DRAWS = 200


class Bin(NamedTuple):
    """Captions of about the same confidence."""

    confidence: float  # the mean
    acceptable: float  # the share
    captions: int


@dataclass(frozen=True)
class Reliability:
    """Of confidences whose captions are known to be acceptable or not.

    `ece` is the expected calibration error over 15 bins of equal mass (Naeini et al. 2015, with the
    bins of Nguyen and O'Connor 2015); `ece_by_chance` is what it would be on average of so many
    captions if each confidence were exactly right. `brier` is the mean squared error, `auroc` the
    probability that an acceptable caption has the higher confidence (None where all captions are of
    one kind). `acceptable_at` is the acceptable share among the most confident 10%, 20% ... 100%:
    the risk-coverage curve, the other way up.
    """

    acceptable: float
    ece: float
    ece_by_chance: float
    brier: float
    auroc: float | None
    acceptable_at: tuple[float, ...]
    bins: tuple[Bin, ...]


def reliability(confidence: Floats, acceptable: Booleans) -> Reliability:
    """Compare confidences [N] in [0, 1] with what turned out [N]."""
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
    """The indices of the captions in each of BINS bins, by confidence."""
    order = np.argsort(confidence, kind="stable")
    return np.array_split(order, min(BINS, len(order)))


def _calibration_error(confidence: Floats, acceptable: Booleans) -> float:
    """Mean distance of confidence and outcome over bins of equal mass, weighted by their mass."""
    excess = confidence - acceptable
    gaps = [abs(excess[part].sum()) for part in _equal_mass(confidence)]
    return float(sum(gaps) / len(confidence))


def _error_by_chance(confidence: Floats) -> float:
    """The mean calibration error of outcomes drawn with the confidences as probabilities."""
    random = np.random.default_rng(0)
    draws = (random.random(len(confidence)) < confidence for _ in range(DRAWS))
    return float(np.mean([_calibration_error(confidence, draw) for draw in draws]))


def auroc(confidence: Floats, acceptable: Booleans) -> float | None:
    """Area under the ROC curve, by ranks (Mann and Whitney); ties count half."""
    positives = int(acceptable.sum())
    negatives = len(acceptable) - positives
    if not positives or not negatives:
        return None
    _, places, counts = np.unique(confidence, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[places]
    excess = ranks[acceptable].sum() - positives * (positives + 1) / 2
    return float(excess / (positives * negatives))
