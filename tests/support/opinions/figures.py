"""The figures of a set of photographs: curves, areas, and what limits them."""

from dataclasses import dataclass

import numpy as np

from captioner.training.evaluation.acceptability import is_acceptable
from captioner.training.evaluation.metrics import cider
from tests.support.opinions.asked import Opinions
from tests.support.opinions.ceiling import Judged, Metric, judged, predicted
from tests.support.opinions.curves import (
    Estimate,
    Floats,
    estimate,
    gained,
    random_band,
    share_of_oracle,
)

SHARES = tuple(percent / 100 for percent in range(0, 101, 5))


@dataclass(frozen=True)
class Figures:
    """What second opinions are worth by one metric. A list has a value for each of SHARES.

    Values are means over all images and draws. The oracle knows what each image gains in the mean
    of the draws. The `share_of_oracle` is that of the area between the curve by confidence and that
    of a random order; `in_one_draw` is the same with an oracle that knows each draw, and
    `second_is_even` with a second captioner that scores the same on every image. The others are
    shares of orders that know more: the score of the first caption, a prediction fitted to the
    other images, and a judge.
    """

    first: float
    second: float
    by_confidence: list[float]
    at_random: list[float]
    band: tuple[list[float], list[float]]
    by_oracle: list[float]
    share_of_oracle: Estimate
    in_one_draw: float
    second_is_even: float
    knowing_the_first: float
    predicted: float
    judged: Judged
    half_measured: float  # in the table, after a run that asked about half of the images


def figures(opinions: Opinions, metric: Metric) -> Figures:
    """Score the captions of all draws and measure each order."""
    first, second, half = (
        np.array(scores) for scores in zip(*_scores(opinions, metric), strict=True)
    )
    gains, doubt = second - first, -opinions.confidence
    gain = gains.mean(0)
    at_random = first.mean() + gain.mean() * np.array(SHARES)
    low, high = random_band(gain)
    return Figures(
        first=float(first.mean()),
        second=float(second.mean()),
        by_confidence=_at_shares(first.mean() + gained(gain, doubt)),
        at_random=at_random.tolist(),
        band=(_at_shares(first.mean() + low), _at_shares(first.mean() + high)),
        by_oracle=_at_shares(first.mean() + gained(gain, gain)),
        share_of_oracle=estimate(gain, doubt),
        in_one_draw=float(np.mean([share_of_oracle(one, doubt) for one in gains])),
        second_is_even=share_of_oracle(-first.mean(0), doubt),
        knowing_the_first=share_of_oracle(gain, -first.mean(0)),
        predicted=share_of_oracle(gain, predicted(opinions, gain)),
        judged=judged(opinions, metric),
        half_measured=float(half.mean()),
    )


def _scores(opinions: Opinions, metric: Metric) -> list[tuple[Floats, Floats, Floats]]:
    """Return, for each draw, what the three tables score."""
    return [
        tuple(
            metric(captions, opinions.others(draw))
            for captions in (opinions.captions, opinions.second[draw], opinions.half[draw])
        )
        for draw in range(len(opinions.second))
    ]


def acceptable(captions: list[str], references: list[tuple[str, ...]]) -> Floats:
    """Return 1 for captions that are acceptable, else 0."""
    return is_acceptable(captions, references).astype(float)


METRICS: dict[str, Metric] = {"CIDEr": cider, "acceptable share": acceptable}


def _at_shares(curve: Floats) -> list[float]:
    return np.interp(SHARES, np.linspace(0, 1, len(curve)), curve).tolist()
