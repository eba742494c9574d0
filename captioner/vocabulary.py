"""Words <-> ids, and token ids -> a sentence."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

PAD, BOS, EOS, UNKNOWN = range(4)
SPECIAL_WORDS = ("<pad>", "<bos>", "<eos>", "<unk>")

_POSSESSIVE = re.compile(r"\s*['\u2019]s\b")
_WORD = re.compile(r"'s|[a-z0-9]+(?:[-'][a-z0-9]+)*")


def tokenize(text: str) -> list[str]:
    """Lower-case words without punctuation; the possessive 's is a word of its own."""
    return _WORD.findall(_POSSESSIVE.sub(" 's", text.lower()))


def sentence(words: Sequence[str]) -> str:
    """Words as a sentence: a capital, a full stop; the empty string for no words."""
    text = " ".join(words).replace(" 's", "'s")
    return f"{text[0].upper()}{text[1:]}." if text else ""


@dataclass(frozen=True)
class Vocabulary:
    """The words a model can say; a word's id is its place, the special tokens first."""

    words: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.words[: len(SPECIAL_WORDS)] != SPECIAL_WORDS:
            raise ValueError(f"a vocabulary starts with {' '.join(SPECIAL_WORDS)}")
        if len(set(self.words)) != len(self.words):
            raise ValueError("a vocabulary names each word once")

    @classmethod
    def build(cls, captions: Iterable[str], min_count: int) -> "Vocabulary":
        """Words seen at least `min_count` times, the most frequent first."""
        counts = Counter(word for caption in captions for word in tokenize(caption))
        kept = [word for word, count in counts.items() if count >= min_count]
        return cls(SPECIAL_WORDS + tuple(sorted(kept, key=lambda word: (-counts[word], word))))

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {word: index for index, word in enumerate(self.words)}

    def __len__(self) -> int:
        return len(self.words)

    def encode(self, text: str) -> list[int]:
        """Ids of the words of a caption, without BOS and EOS; unseen words are UNKNOWN."""
        return [self._ids.get(word, UNKNOWN) for word in tokenize(text)]

    def decode(self, ids: Iterable[int]) -> list[str]:
        """Words up to the first EOS, special tokens left out."""
        words = []
        for index in ids:
            if index == EOS:
                break
            if index >= len(SPECIAL_WORDS):
                words.append(self.words[index])
        return words
