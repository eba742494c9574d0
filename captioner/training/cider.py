"""CIDEr-D over token ids, fast enough to be a reward in training.

Source: Vedantam, Zitnick and Parikh 2015 (arXiv:1411.5726), as pycocoevalcap computes it: n-grams
of 1 to 4 words, clipped term frequencies, a Gaussian penalty on the difference of length.
"""

import math
from collections import Counter
from collections.abc import Sequence
from typing import TypeAlias

NGRAM = 4
SIGMA = 6.0
Words: TypeAlias = Sequence[int]
Vectors: TypeAlias = list[dict[tuple[int, ...], float]]  # for each n, the TF-IDF weight of n-grams


class CiderD:
    """A scorer of captions against references, from which it takes the document frequencies."""

    def __init__(self, references: Sequence[Sequence[Words]]) -> None:
        """Prepare `references[image]`: token ids, which may include the end of the sentence."""
        frequency: Counter[tuple[int, ...]] = Counter()
        for texts in references:
            frequency.update({ngram for text in texts for ngram in _ngrams(text)})
        images = math.log(max(2, len(references)))
        self._unseen = images
        self._idf = {ngram: images - math.log(count) for ngram, count in frequency.items()}
        self._references = [[self._describe(text) for text in texts] for texts in references]

    def score(self, image: int, caption: Words) -> float:
        """Return the CIDEr-D, 0 to 10, of a caption against the references of an image."""
        vectors, norms, length = self._describe(caption)
        total = 0.0
        for others, other_norms, other_length in self._references[image]:
            similarity = 0.0
            for n in range(NGRAM):
                if norms[n] and other_norms[n]:
                    dot = _clipped_dot(vectors[n], others[n])
                    similarity += dot / (norms[n] * other_norms[n])
            penalty = math.exp(-((length - other_length) ** 2) / (2 * SIGMA**2))
            total += similarity / NGRAM * penalty
        return 10 * total / len(self._references[image])

    def _describe(self, text: Words) -> tuple[Vectors, list[float], int]:
        """Return the TF-IDF vectors of a text, their norms, and its length."""
        vectors: Vectors = [{} for _ in range(NGRAM)]
        for ngram, count in Counter(_ngrams(text)).items():
            vectors[len(ngram) - 1][ngram] = count * self._idf.get(ngram, self._unseen)
        norms = [math.sqrt(sum(weight**2 for weight in part.values())) for part in vectors]
        return vectors, norms, max(0, len(text) - 1)  # bigrams, as pycocoevalcap counts


def _ngrams(text: Words) -> list[tuple[int, ...]]:
    return [
        tuple(text[start : start + n])
        for n in range(1, NGRAM + 1)
        for start in range(len(text) - n + 1)
    ]


def _clipped_dot(
    caption: dict[tuple[int, ...], float], reference: dict[tuple[int, ...], float]
) -> float:
    return sum(
        min(weight, reference[ngram]) * reference[ngram]
        for ngram, weight in caption.items()
        if ngram in reference
    )
