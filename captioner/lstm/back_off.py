"""Backing off: a noun that is likely to be wrong gives way to a more general one.

"An animal" for "a cat" is seldom wrong where the cat may be a dog.
"""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from captioner.lstm.beam_search import Hypotheses
from captioner.lstm.presence import LOG_FLOOR
from captioner.lstm.vocabulary import EOS, Vocabulary
from captioner.words import ADJECTIVES, FUNCTION_WORDS, KINDS, NUMBERS, PLURALS, SINGULAR


class BackOff:
    """The general words of a vocabulary, by the ids of those that they may stand for.

    A noun that is part of a name stays, as in "teddy bear" and "train tracks": only function words
    and some adjectives may come before one that gives way, and only function words, an "-ing" and
    the end of the caption after it. Beside a plural, there is no adjective ("a white sheep") and no
    word for a single thing ("the sheep is"), but for the verb of "a herd of cows is".
    """

    def __init__(self, vocabulary: Vocabulary, lengths: Tensor, max_characters: int) -> None:
        """Take the characters that each word adds, int64 [V], and the most of a caption."""
        ids = {word: index for index, word in enumerate(vocabulary.words)}
        self._members = {
            ids[general]: [ids[word] for word in (general, *kinds) if word in ids]
            for general, kinds in KINDS.items()
            if general in ids
        }
        self._general = {
            member: general for general, members in self._members.items() for member in members[1:]
        }

        def known(words: Iterable[str]) -> set[int]:
            return {ids[word] for word in words if word in ids}

        self._plurals, self._singular = known(PLURALS), known(SINGULAR)
        self._before = known(FUNCTION_WORDS | ADJECTIVES)
        self._before_plural = known(FUNCTION_WORDS - SINGULAR | NUMBERS)
        self._after = known(FUNCTION_WORDS) | known(w for w in ids if w.endswith("ing")) | {EOS}
        self._of = ids.get("of")
        self._lengths, self._max_characters = lengths.tolist(), max_characters

    def __call__(
        self, hypotheses: Hypotheses, log_presence: Tensor, doubtful: Iterable[Sequence[int]]
    ) -> tuple[Hypotheses, Tensor]:
        """Return hypotheses and word presence [N, V] in which doubtful words have given way.

        `doubtful` are images and places in their best hypotheses, the most doubtful first. A
        general word is as present as its kinds are together. It is not said twice, and a caption
        does not become too long. Probabilities remain those of the words that the search chose.
        """
        tokens, log_presence = hypotheses.tokens.clone(), log_presence.clone()
        for image, place in doubtful:
            ids = tokens[image, 0].tolist()
            general = self._general.get(ids[place])
            if general is None or not self._fits(ids, place, general):
                continue
            tokens[image, 0, place] = general
            members = log_presence[image, self._members[general]]
            log_presence[image, general] = _any(members).clamp(min=LOG_FLOOR)
        return hypotheses._replace(tokens=tokens), log_presence

    def _fits(self, ids: list[int], place: int, general: int) -> bool:
        if not self._stands_alone(ids[:place][-1:], ids[place + 1], general in self._plurals):
            return False
        length = sum(self._lengths[word] for word in ids)
        longer = self._lengths[general] - self._lengths[ids[place]]
        return general not in ids and length + longer <= self._max_characters

    def _stands_alone(self, before: list[int], after: int, plural: bool) -> bool:
        """Return whether a noun is no part of a name, given the word before it, if any."""
        if not plural:
            return self._before.issuperset(before) and after in self._after
        agrees = after not in self._singular or before == [self._of]
        return self._before_plural.issuperset(before) and after in self._after and agrees


def _any(log_probs: Tensor) -> Tensor:
    """Return the log-probability that any of some independent events [K] occurs."""
    return torch.log1p(-torch.log1p(-log_probs.exp().clamp(max=1 - 1e-6)).sum().exp())
