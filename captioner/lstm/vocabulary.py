"""Words <-> ids, and token ids -> a sentence."""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from itertools import pairwise, takewhile
from operator import ne

PAD, BOS, EOS, UNKNOWN = range(4)
SPECIAL_WORDS = ("<pad>", "<bos>", "<eos>", "<unk>")

_POSSESSIVE = re.compile(r"\s*'s\b", re.IGNORECASE)
_WORD = re.compile(r"'s|[^\W_]+(?:[-'][^\W_]+)*", re.IGNORECASE)  # letters and digits of any script
# "an" precedes a vowel sound: "an hour", "an SUV", but "a unicycle", "a UFO".
_ARTICLES = ("a", "an")
_SPELT_OUT = re.compile(r"[A-Z](?:[A-Z]*|-.*)")  # spoken letter by letter
_VOWEL_NAMES = frozenset("AEFHILMNORSX")
_VOWEL = re.compile(
    r"(?!one|once|uni(?![dmn])|u[kt][aeiu]|us[aeu]|ub|e[uw])[aeiou]|hour|heir|hono|8|1[18](?!\d)"
)


def tokenize(text: str) -> list[str]:
    """Split text into lower-case words without punctuation; the possessive 's is one of them."""
    return _as_written(text.lower())


def _as_written(text: str) -> list[str]:
    composed = unicodedata.normalize("NFC", text).replace("\u2019", "'")
    return _WORD.findall(_POSSESSIVE.sub(" 's", composed))


def sentence(words: Sequence[str]) -> str:
    """Join words to a sentence with a capital and a full stop; no words give an empty string."""
    corrected = [
        _article(after) if word in _ARTICLES and after else word
        for word, after in pairwise([*words, ""])
    ]
    text = " ".join(corrected).replace(" 's", "'s")
    return f"{capitalised(text)}." if text else ""


def capitalised(text: str) -> str:
    """Return a text, which is not empty, with a capital at its beginning."""
    return text[0].upper() + text[1:]


@lru_cache(maxsize=1 << 14)
def _article(after: str) -> str:
    """Return the article, "a" or "an", that the next word requires."""
    if _SPELT_OUT.fullmatch(after):
        return "an" if after[0] in _VOWEL_NAMES else "a"
    return "an" if _VOWEL.match(after.lower()) else "a"


@dataclass(frozen=True)
class Vocabulary:
    """The words of a model; a word's id is its index, the special tokens come first.

    Words are spelt as within a sentence ("dog", "TV", "American"); encoding ignores case.
    """

    words: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.words[: len(SPECIAL_WORDS)] != SPECIAL_WORDS:
            raise ValueError(f"a vocabulary starts with {' '.join(SPECIAL_WORDS)}")
        if len({word.lower() for word in self.words}) != len(self.words):
            raise ValueError("a vocabulary contains each word once")

    @classmethod
    def build(cls, captions: Iterable[str], min_count: int) -> "Vocabulary":
        """Collect words seen at least `min_count` times in their usual spelling, by frequency."""
        counts: Counter[str] = Counter()
        forms: defaultdict[str, Counter[str]] = defaultdict(Counter)
        for caption in captions:
            written = _as_written(caption)
            counts.update(word.lower() for word in written)
            for word in written[1:]:  # the first one always has a capital
                forms[word.lower()][word] += 1
        kept = [word for word, count in counts.items() if count >= min_count]
        ordered = sorted(kept, key=lambda word: (-counts[word], word))
        return cls(SPECIAL_WORDS + tuple(_usual_form(forms[word]) or word for word in ordered))

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {word.lower(): index for index, word in enumerate(self.words)}

    def __len__(self) -> int:
        return len(self.words)

    def has_same_words(self, other: "Vocabulary") -> bool:
        """Return whether both give the same ids to the same words, ignoring case."""
        return self._ids == other._ids

    def extended(self, other: "Vocabulary") -> "Vocabulary":
        """Return these words, followed by those of another vocabulary that are not among them."""
        new = (word for word in other.words if word.lower() not in self._ids)
        return Vocabulary((*self.words, *new))

    def encode(self, text: str) -> list[int]:
        """Return the ids of a caption's words, without BOS and EOS; unknown words are UNKNOWN."""
        return [self._ids.get(word, UNKNOWN) for word in tokenize(text)]

    def decode(self, ids: Iterable[int]) -> list[str]:
        """Return the words up to the first EOS, without special tokens."""
        until_end = takewhile(partial(ne, EOS), ids)
        return [self.words[index] for index in until_end if index >= len(SPECIAL_WORDS)]


def _usual_form(forms: Counter[str]) -> str:
    """Return the most frequent form, preferring lower case; an empty string if there is none."""
    return max(forms, key=lambda form: (forms[form], form.islower()), default="")
