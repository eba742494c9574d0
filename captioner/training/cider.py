"""CIDEr-D over token ids, fast enough to be a reward in training.

Source: Vedantam, Zitnick and Parikh 2015 (arXiv:1411.5726), as pycocoevalcap computes it: n-grams
of 1 to 4 words, clipped term frequencies, a Gaussian penalty on the difference of length.
"""

import math
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

NGRAM = 4
SIGMA = 6.0
Words: TypeAlias = Sequence[int]
Ngram: TypeAlias = tuple[int, ...]


class CiderD:
    """A scorer of captions against references, from which it takes the document frequencies."""

    def __init__(self, references: Sequence[Sequence[Words]]) -> None:
        """Prepare `references[image]`: token ids, which may include the end of the sentence."""
        frequency: Counter[Ngram] = Counter()
        for texts in references:
            frequency.update({ngram for text in texts for ngram in _ngrams(text)})
        images = math.log(max(2, len(references)))
        self._unseen = images
        self._idf = {ngram: images - math.log(count) for ngram, count in frequency.items()}
        self._references = [
            _References([self._describe(text) for text in texts]) for texts in references
        ]

    def score(self, image: int, caption: Words) -> float:
        """Return the CIDEr-D, 0 to 10, of a caption against the references of an image."""
        references = self._references[image]
        weights, norms, length = self._describe(caption)
        dots = [[0.0] * NGRAM for _ in references.norms]
        for ngram, weight in weights.items():
            for reference, other in references.weights.get(ngram, ()):
                dots[reference][len(ngram) - 1] += min(weight, other) * other
        total = 0.0
        for dot, other_norms, other_length in zip(
            dots, references.norms, references.lengths, strict=True
        ):
            similarity = sum(
                part / (norm * other)
                for part, norm, other in zip(dot, norms, other_norms, strict=True)
                if part
            )
            penalty = math.exp(-((length - other_length) ** 2) / (2 * SIGMA**2))
            total += similarity / NGRAM * penalty
        return 10 * total / len(references.norms)

    def _describe(self, text: Words) -> "_Description":
        weights = {
            ngram: count * self._idf.get(ngram, self._unseen)
            for ngram, count in Counter(_ngrams(text)).items()
        }
        squares = [0.0] * NGRAM
        for ngram, weight in weights.items():
            squares[len(ngram) - 1] += weight**2
        length = max(0, len(text) - 1)  # bigrams, as pycocoevalcap counts
        return _Description(weights, [math.sqrt(square) for square in squares], length)


class _Description(NamedTuple):
    """The TF-IDF weights of a text's n-grams, their norm for each n, and its length."""

    weights: dict[Ngram, float]
    norms: list[float]
    length: int


class _References:
    """The references of an image, by their n-grams: a caption shares few with them."""

    def __init__(self, texts: Sequence[_Description]) -> None:
        self.norms = [text.norms for text in texts]
        self.lengths = [text.length for text in texts]
        self.weights: dict[Ngram, list[tuple[int, float]]] = {}
        for reference, text in enumerate(texts):
            for ngram, weight in text.weights.items():
                self.weights.setdefault(ngram, []).append((reference, weight))


def _ngrams(text: Words) -> list[tuple[int, ...]]:
    return [
        tuple(text[start : start + n])
        for n in range(1, NGRAM + 1)
        for start in range(len(text) - n + 1)
    ]
