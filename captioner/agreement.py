"""Agreement: how far two captions say the same.

Importing this module does not import torch.
"""

import re
from itertools import takewhile
from operator import eq

from captioner.lstm.vocabulary import tokenize
from captioner.words import FUNCTION_WORDS

LEAST_STEM = 3  # letters at their beginning that two forms of a word have in common
# Scripts that put no spaces between words: each character counts as one.
_UNSPACED = re.compile(r"([\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff])")


def agreement(one: str, other: str) -> float:
    """Return how far two captions say the same, in [0, 1]; their order does not matter.

    It is the share of their content words that both have. Long words weigh more, because they are
    rarer, and forms of a word ("runs", "running") count by the share of their letters at the
    beginning that are the same, so that no stemmer is needed for each language.
    """
    words, others = _content_words(one), _content_words(other)
    total = sum(map(len, (*words, *others)))
    if not total:
        return float(tokenize(one) == tokenize(other))
    return (_found(words, others) + _found(others, words)) / total


def _content_words(text: str) -> set[str]:
    return {
        word
        for run in tokenize(text)
        if run not in FUNCTION_WORDS
        for word in _UNSPACED.split(run)
        if word
    }


def _found(words: set[str], others: set[str]) -> float:
    """Return how many letters of words are found in others."""
    return sum(
        len(word) * max((_likeness(word, other) for other in others), default=0.0) for word in words
    )


def _likeness(word: str, other: str) -> float:
    if word == other:
        return 1.0
    same = sum(takewhile(bool, map(eq, word, other)))
    return 2 * same / (len(word) + len(other)) if same >= LEAST_STEM else 0.0
