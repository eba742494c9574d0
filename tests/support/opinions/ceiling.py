"""How well any order could do: what limits it, besides the confidence."""

from collections.abc import Callable, Iterator, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from sklearn.decomposition import PCA
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.model_selection import KFold, cross_val_predict

from captioner.lstm.vocabulary import tokenize
from tests.support.opinions.asked import REFERENCES, Opinions
from tests.support.opinions.curves import Floats, area

Metric = Callable[[Sequence[str], Sequence[Sequence[str]]], Floats]
SEEN = 2  # of the four other references, by the judge
COMPONENTS = 30


class Judged(NamedTuple):
    """Shares of the oracle's area, all scored by references that the judge does not see."""

    judge: float
    confidence: float


def judged(opinions: Opinions, metric: Metric) -> Judged:
    """Return how well a judge would order, who knows both captions and two of the references.

    Nobody who has to choose before the second captioner is asked knows as much.
    """
    areas = np.array(list(_areas(opinions, metric))).sum(0)
    return Judged(*(areas[:2] / areas[2]).tolist())


def _areas(opinions: Opinions, metric: Metric) -> Iterator[tuple[float, float, float]]:
    positions = frozenset(range(REFERENCES - 1))
    for draw, second in enumerate(opinions.second):
        others = opinions.others(draw)
        gains = {}
        for seen in map(frozenset, combinations(positions, SEEN)):
            known = [[texts[n] for n in seen] for texts in others]
            gains[seen] = metric(second, known) - metric(opinions.captions, known)
        for seen, known in gains.items():
            gain = gains[positions - seen]
            yield area(gain, known), area(gain, -opinions.confidence), area(gain, gain)


def predicted(opinions: Opinions, gain: Floats) -> Floats:
    """Return the gain of each image as predicted without it from all that the table knows of it."""
    signals = np.array([_signals(row) for row in opinions.first])
    vectors = np.array(opinions.embeddings)
    pictures = PCA(min(COMPONENTS, *vectors.shape), random_state=0).fit_transform(vectors)
    trees = ExtraTreesRegressor(400, min_samples_leaf=10, max_features=0.3, random_state=0)
    folds = KFold(10, shuffle=True, random_state=0)
    return cross_val_predict(trees, np.hstack([signals, pictures]), gain, cv=folds)


def _signals(row: dict[str, Any]) -> list[float]:
    tokens = np.sort(row["token_log_probs"])
    others = [other["log_prob"] for other in row["alternatives"]] or [row["log_prob"]]
    words = set(tokenize(row["caption"]))
    alike = [_overlap(words, set(tokenize(other["caption"]))) for other in row["alternatives"]]
    return [
        row["confidence"],
        *(tokens.mean(), tokens.sum(), tokens.std(), tokens[0], tokens[:3].mean(), len(tokens)),
        *(row["log_prob"] - max(others), row["log_prob"] - min(others)),
        *(np.mean(alike or [1.0]), min(alike, default=1.0)),
    ]


def _overlap(words: set[str], others: set[str]) -> float:
    return len(words & others) / max(1, len(words | others))
