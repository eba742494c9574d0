"""Acceptability of captions: whether people who saw the image used the same words.

A proxy for a reader's judgement, computed from references: each content word of the caption is
supported by the share of the image's references that contain it, fully from two of five on. A word
for people is also supported by more general or more specific ones ("man" by "rider", "person" by
"woman"), and words are compared by their stems ("runs", "running"). Rare words weigh more, by
inverse document frequency as in CIDEr (arXiv:1411.5726).
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from captioner.caption import Caption
from captioner.errors import MissingExtraError
from captioner.lstm.vocabulary import tokenize
from captioner.words import FUNCTION_WORDS, KINDS

try:
    import snowballstemmer
except ImportError:
    snowballstemmer = None

ACCEPTABLE_CONSENSUS = 0.55  # with five references or more
# Fewer people say fewer of the words that are right. With these, as many captions of 1,000
# photographs are acceptable by some of their five references as by all of them.
OF_FEW_REFERENCES = {1: 0.36, 2: 0.48, 3: 0.52, 4: 0.53}
FULL_SUPPORT = 0.4  # the share of references from which on a word is fully supported
DEFINITION = (
    f"a consensus of at least {ACCEPTABLE_CONSENSUS} with the image's references, of "
    f"{', '.join(map(str, OF_FEW_REFERENCES.values()))} if there are one to four: the mean over "
    "the caption's content words, weighted by inverse document frequency, of the share of "
    f"references that say the word, fully from {FULL_SUPPORT} on; a proxy for a reader's judgement"
)
WORD_DEFINITION = (
    "any of the image's references has the word, compared by its stem; for people, also a more "
    "general or more specific word ('person', 'woman'); for 'animal' and 'vehicle', also a kind"
)

ROLES = "player rider biker cyclist skier snowboarder skateboarder surfer climber hiker runner"
ADULTS = "man men woman women guy lady gentleman male female"
CHILDREN = "child children kid toddler baby"
# General words, words for people, and the words that support them.
SUPPORTED_BY = {
    "animal": " ".join(KINDS["animal"] + KINDS["animals"]),  # only the latter have "sheep"
    "vehicle": " ".join(KINDS["vehicle"]),
    "person": f"people {ADULTS} {CHILDREN} boy girl {ROLES}",
    "people": f"person {ADULTS} {CHILDREN} boy girl {ROLES}",
    "man": f"men guy gentleman male person {ROLES}",
    "men": f"man guy gentleman male people {ROLES}",
    "woman": f"women lady female person {ROLES}",
    "women": f"woman lady female people {ROLES}",
    "child": f"{CHILDREN} boy girl",
    "children": f"{CHILDREN} boy girl",
    "boy": f"{CHILDREN} male",
    "girl": f"{CHILDREN} female",
}


def require_stemmer() -> None:
    """Raise MissingExtraError now if acceptability could not be computed later."""
    if snowballstemmer is None:
        raise MissingExtraError(
            "acceptability needs snowballstemmer: pip install 'captioner[train]'"
        )


def consensus(
    captions: Sequence[str], references: Sequence[Sequence[str]]
) -> npt.NDArray[np.float64]:
    """Return how far the references of each image support its caption, float64 [N] in [0, 1].

    Document frequencies are those of `references`. Raises MissingExtraError without
    snowballstemmer.
    """
    stems = _Stems()
    stemmed = [[stems.of(text) for text in of_image] for of_image in references]
    frequency = Counter(stem for of_image in stemmed for stem in set().union(*of_image))

    def support(caption: str, of_image: list[set[str]]) -> float:
        supported = total = 0.0
        for stem in stems.of(caption):
            same = stems.supporting(stem)
            share = sum(bool(same & reference) for reference in of_image) / len(of_image)
            rarity = math.log((1 + len(references)) / max(1, frequency[stem]))
            total += rarity
            supported += rarity * min(1.0, share / FULL_SUPPORT)
        return supported / total if total else 0.0

    return np.array([support(*pair) for pair in zip(captions, stemmed, strict=True)])


def is_acceptable(
    captions: Sequence[str], references: Sequence[Sequence[str]]
) -> npt.NDArray[np.bool_]:
    """Return which captions [N] reach the consensus that the number of their references demands."""
    least = [OF_FEW_REFERENCES.get(len(texts), ACCEPTABLE_CONSENSUS) for texts in references]
    return consensus(captions, references) >= np.array(least)


def right_words(
    captions: Sequence[Caption], references: Sequence[Sequence[str]]
) -> npt.NDArray[np.bool_]:
    """Return which of the `words` [M] of captions are right, one caption after another.

    Any reference of its image has the word, or one that supports it. Raises MissingExtraError
    without snowballstemmer.
    """
    stems = _Stems()
    right: list[bool] = []
    for caption, of_image in zip(captions, references, strict=True):
        said = set().union(*map(stems.of, of_image))
        for word in caption.words:
            right.append(any(stems.supporting(stem) & said for stem in stems.of(word.text)))
    return np.array(right, bool)


class _Stems:
    """A stemmer of captions to sets of content words, and the stems that support each stem."""

    def __init__(self) -> None:
        require_stemmer()
        self._stemmer = snowballstemmer.stemmer("english")
        self._supported_by = {
            self._stemmer.stemWord(word): self._all(others.split())
            for word, others in SUPPORTED_BY.items()
        }

    def of(self, text: str) -> set[str]:
        return self._all(word for word in tokenize(text) if word not in FUNCTION_WORDS)

    def supporting(self, stem: str) -> set[str]:
        """Return the stem itself and those that support it."""
        return {stem} | self._supported_by.get(stem, set())

    def _all(self, words: Iterable[str]) -> set[str]:
        return set(self._stemmer.stemWords(list(words)))
