"""The value of second opinions: what is gained as a growing share of the images is sent."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

RESAMPLES = 2000
Floats = npt.NDArray[np.float64]


class Estimate(NamedTuple):
    """A figure, and the interval that holds 95% of it when the images are drawn again."""

    value: float
    low: float
    high: float


def first_asked(doubt: Floats) -> npt.NDArray[np.intp]:
    """Return the order in which images are sent: the greatest doubt first."""
    return np.argsort(-doubt, kind="stable")


def gained(gain: Floats, doubt: Floats) -> Floats:
    """Return what each image would gain [N] -> the mean gain of all after 0 to N are sent [N+1]."""
    return np.concatenate([[0.0], np.cumsum(gain[first_asked(doubt)])]) / len(gain)


def area(gain: Floats, doubt: Floats) -> float:
    """Return the area between the curve of this order and the expectation of a random one."""
    curve = gained(gain, doubt)
    return float((curve - curve[-1] * np.linspace(0, 1, len(curve))).mean())


def share_of_oracle(gain: Floats, doubt: Floats) -> float:
    """Return the area of an order as a share of the greatest possible one."""
    return area(gain, doubt) / area(gain, gain)


def estimate(gain: Floats, doubt: Floats) -> Estimate:
    """Return `share_of_oracle` with its uncertainty."""
    random = np.random.default_rng(0)
    draws = random.integers(len(gain), size=(RESAMPLES, len(gain)))
    shares = [share_of_oracle(gain[draw], doubt[draw]) for draw in draws]
    low, high = np.quantile(shares, (0.025, 0.975))
    return Estimate(share_of_oracle(gain, doubt), float(low), float(high))


def random_band(gain: Floats) -> tuple[Floats, Floats]:
    """Return between which values 95% of the curves of random orders lie, at each point [N+1]."""
    random = np.random.default_rng(0)
    curves = [gained(gain, random.random(len(gain))) for _ in range(RESAMPLES)]
    low, high = np.quantile(curves, (0.025, 0.975), axis=0)
    return low, high
