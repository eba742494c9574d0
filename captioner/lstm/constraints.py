"""Constraints on captions: the words that must not come next in each hypothesis of a search.

Every hypothesis can still be completed: a word that cannot end a caption is forbidden where no room
would be left for one that can.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from captioner.lstm.vocabulary import BOS, EOS, PAD, SPECIAL_WORDS, UNKNOWN, Vocabulary
from captioner.search_options import SearchOptions
from captioner.words import DEPICTIONS, FUNCTION_WORDS

NEG_INF = float("-inf")

LAST_OPENING = 3  # the last position, from 0, in the opening of a caption


@dataclass(frozen=True)
class WordRules:
    """Properties of the V words of a vocabulary that the constraints need."""

    lengths: Tensor  # int64 [V], the most characters it adds, with a space or full stop
    closing: Tensor  # bool [V], whether it may end a caption
    content: Tensor  # bool [V], whether it is a content word
    depicting: Tensor  # bool [V], whether "of" must not follow it in an opening
    of: int  # the id of "of"; PAD if there is none
    longest: int  # the most characters that any word adds
    longest_closing: int  # the most that a word adds that may end a caption

    @classmethod
    def of_vocabulary(cls, vocabulary: Vocabulary, device: torch.device) -> "WordRules":
        words = [word.lower() for word in vocabulary.words[len(SPECIAL_WORDS) :]]
        special = [False] * len(SPECIAL_WORDS)
        lengths = [len("an " if word == "a" else f"{word} ") for word in words]
        closing = [word not in FUNCTION_WORDS for word in words]
        closing_lengths = [n for n, last in zip(lengths, closing, strict=True) if last]
        depicting = [word in DEPICTIONS for word in words]
        return cls(
            lengths=torch.tensor([*(0 for _ in special), *lengths], device=device),
            closing=torch.tensor([*(True for _ in special), *closing], device=device),
            content=torch.tensor([*special, *closing], device=device),
            depicting=torch.tensor([*special, *depicting], device=device),
            of=words.index("of") + len(SPECIAL_WORDS) if "of" in words else PAD,
            longest=max(lengths, default=0),
            longest_closing=max(closing_lengths, default=0),
        )


def constrain(
    log_probs: Tensor, tokens: Tensor, options: SearchOptions, rules: WordRules | None
) -> Tensor:
    """Return `log_probs` [N, B, V] with the words that must not follow `tokens` [N, B, t] at -inf.

    Without `rules`, neither the number of characters nor the opening and ending are constrained.
    """
    t = tokens.shape[2]
    allowed = log_probs.clone()
    for word in (PAD, BOS, UNKNOWN):  # not a list: a GPU would be waited for, to copy it
        allowed[..., word] = NEG_INF
    if t == options.max_length:
        allowed[..., :EOS] = NEG_INF
        allowed[..., EOS + 1 :] = NEG_INF
        return allowed
    if rules is not None:
        _limit_characters(allowed, tokens, options, rules)
        if t:
            _constrain_opening_and_ending(allowed, tokens, rules)
    if options.block_ngram:
        _block_ngrams(allowed, tokens, options.block_ngram)
    if t < options.min_length:
        can_continue = (allowed[..., EOS + 1 :] > NEG_INF).any(-1)  # [N, B]
        allowed[..., EOS].masked_fill_(can_continue, NEG_INF)
    return allowed


def _limit_characters(
    log_probs: Tensor, tokens: Tensor, options: SearchOptions, rules: WordRules
) -> None:
    """Forbid, in place, words too long to fit together with a word to end on."""
    t = tokens.shape[2]
    if t == options.max_length - 1:
        log_probs.masked_fill_(~rules.closing, NEG_INF)
    if (t + 1) * rules.longest + rules.longest_closing <= options.max_characters:
        return  # there is room, whatever the words are
    room = options.max_characters - rules.lengths[tokens].sum(-1)  # [N, B]
    needed = rules.lengths + rules.longest_closing * ~rules.closing  # [V]
    log_probs.masked_fill_(needed > room.unsqueeze(2), NEG_INF)


def _constrain_opening_and_ending(log_probs: Tensor, tokens: Tensor, rules: WordRules) -> None:
    """Forbid, in place, openings like "a photo of" and endings in a function word."""
    last = tokens[:, :, -1]  # [N, B]
    log_probs[..., EOS].masked_fill_(~rules.closing[last], NEG_INF)
    if tokens.shape[2] <= LAST_OPENING + 1:
        log_probs[..., rules.of].masked_fill_(rules.depicting[last], NEG_INF)


def _block_ngrams(log_probs: Tensor, tokens: Tensor, n: int) -> None:
    """Forbid, in place, words that would repeat an n-gram of `tokens` [N, B, t]."""
    t = tokens.shape[2]
    if t < n:
        return
    windows = tokens.unfold(2, n, 1)  # [N, B, t - n + 1, n]
    context = tokens[:, :, t - n + 1 :].unsqueeze(2)  # [N, B, 1, n - 1]
    repeated = (windows[..., :-1] == context).all(-1)  # [N, B, t - n + 1]
    penalty = torch.zeros_like(repeated, dtype=log_probs.dtype).masked_fill(repeated, NEG_INF)
    log_probs.scatter_add_(2, windows[..., -1], penalty)
