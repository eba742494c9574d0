"""What makes a caption acceptable: that people who saw the image used its words.

A proxy for a reader's judgement, made for references: each content word of the caption is borne
out as far as references of the image say it, fully from two of five on. A word for people is borne
out by others that leave it open or tell more ("man" by "rider", "person" by "woman"), and words
count by their stems ("runs", "running").
Rare words weigh more, by their inverse document frequency, as in CIDEr (arXiv:1411.5726).
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from captioner.constraints import OPEN_ENDED
from captioner.errors import MissingExtraError
from captioner.vocabulary import tokenize

try:
    import snowballstemmer
except ImportError:
    snowballstemmer = None

ACCEPTABLE_CONSENSUS = 0.55
FULLY = 0.4  # the share of references from which on a word is fully borne out
DEFINITION = (
    f"a consensus of at least {ACCEPTABLE_CONSENSUS} with the image's references: the mean over "
    "the caption's content words, weighted by inverse document frequency, of the share of "
    f"references that say the word, fully from {FULLY} on; a proxy for a reader's judgement"
)

ROLES = "player rider biker cyclist skier snowboarder skateboarder surfer climber hiker runner"
ADULTS = "man men woman women guy lady gentleman male female"
CHILDREN = "child children kid toddler baby"
# Words for people, and those that bear them out.
BEARS_OUT = {
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


def require_consensus() -> None:
    """Raise MissingExtraError now if no consensus could be computed later."""
    if snowballstemmer is None:
        raise MissingExtraError(
            "what is acceptable needs snowballstemmer: pip install 'captioner[train]'"
        )


def consensus(
    captions: Sequence[str], references: Sequence[Sequence[str]]
) -> npt.NDArray[np.float64]:
    """How far the references of each image bear out its caption, float64 [N], from 0 to 1.

    The document frequencies are those of `references`. Raises MissingExtraError without
    snowballstemmer.
    """
    stems = _Stems()
    said = [[stems.of(text) for text in of_image] for of_image in references]
    images = Counter(stem for of_image in said for stem in set().union(*of_image))
    return np.array(
        [
            _borne_out(stems.of(caption), of_image, stems, images, len(references))
            for caption, of_image in zip(captions, said, strict=True)
        ]
    )


def is_acceptable(
    captions: Sequence[str], references: Sequence[Sequence[str]]
) -> npt.NDArray[np.bool_]:
    """Which captions [N] reach ACCEPTABLE_CONSENSUS."""
    return consensus(captions, references) >= ACCEPTABLE_CONSENSUS


class _Stems:
    """Captions as sets of the stems of their content words, and what bears a stem out."""

    def __init__(self) -> None:
        require_consensus()
        self._stem = snowballstemmer.stemmer("english").stemWords
        self.bears_out = {
            self._one(word): self._all(others.split()) for word, others in BEARS_OUT.items()
        }

    def of(self, text: str) -> set[str]:
        return self._all(word for word in tokenize(text) if word not in OPEN_ENDED)

    def _one(self, word: str) -> str:
        return str(self._stem([word])[0])

    def _all(self, words: Iterable[str]) -> set[str]:
        return set(self._stem(list(words)))


def _borne_out(
    caption: set[str], references: list[set[str]], stems: _Stems, images: Counter[str], count: int
) -> float:
    weight = total = 0.0
    for stem in caption:
        same = {stem} | stems.bears_out.get(stem, set())
        share = sum(bool(same & reference) for reference in references) / len(references)
        rarity = math.log((1 + count) / max(1, images[stem]))
        total += rarity
        weight += rarity * min(1.0, share / FULLY)
    return weight / total if total else 0.0
