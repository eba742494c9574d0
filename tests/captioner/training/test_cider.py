"""The reward of self-critical training is CIDEr-D as pycocoevalcap computes it."""

import numpy as np
import pytest

from captioner.training.cider import CiderD
from captioner.training.evaluation.metrics import cider

CAPTIONS = [
    ("a dog runs", ["a dog runs on the grass", "the brown dog runs"]),
    ("a man a man a man sits", ["a man sits", "an old man on a bench", "somebody sits"]),
    ("nothing of it", ["two girls jump", "girls play"]),
    ("a cat sleeps on a red sofa in the sun", ["a cat sleeps"]),
]


def test_it_agrees_with_pycocoevalcap() -> None:
    words = sorted(
        {word for text, texts in CAPTIONS for one in (text, *texts) for word in one.split()}
    )

    def ids(text: str) -> list[int]:
        return [words.index(word) for word in text.split()]

    scorer = CiderD([[ids(text) for text in texts] for _, texts in CAPTIONS])
    ours = [scorer.score(image, ids(text)) for image, (text, _) in enumerate(CAPTIONS)]
    theirs = cider([text for text, _ in CAPTIONS], [texts for _, texts in CAPTIONS])
    np.testing.assert_allclose(ours, theirs, rtol=1e-9)
    assert ours[0] > 1 and ours[2] == 0


def test_one_word_scores_without_error() -> None:
    scorer = CiderD([[[5]], [[6, 7]]])
    assert scorer.score(0, [5]) > 0
    assert scorer.score(1, [5]) == scorer.score(1, []) == 0


def test_the_end_of_a_sentence_counts_if_it_has_an_id() -> None:
    end = 2
    scorer = CiderD([[[5, 6, end]], [[7, 8, end]]])
    assert scorer.score(0, [5, 6, end]) == pytest.approx(10 * 3 / 4)  # it has no 4-gram
    assert scorer.score(0, [5, 6]) < scorer.score(0, [5, 6, end])
