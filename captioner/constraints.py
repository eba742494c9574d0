"""What a caption may not be: the words that each hypothesis of a search may not go on with.

Every rule leaves a way to a complete caption: a word after which no sentence could end is forbidden
where no room is left for another, so no hypothesis dies of the rules.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from captioner.search_options import SearchOptions
from captioner.vocabulary import BOS, EOS, PAD, SPECIAL_WORDS, UNKNOWN, Vocabulary, tokenize

NEVER = float("-inf")

# Function words; not those that end sentences in their own right ("outside", "away", "it").
OPEN_ENDED = frozenset(
    tokenize(
        """
        a an the this these every no some his her its their my our your 's
        and or but nor as if than that because while whilst when where which who whose
        about above across after against along alongside among amongst around at atop before
        behind beneath beside besides between by down during for from in inside into near next of
        off on onto over past since than through to toward towards under until up upon via with
        within without am is are was were be been being has have had having do does did can could
        will would he she they we i very too so just both each
        """
    )
)
DEPICTIONS = frozenset(
    tokenize("image images photo photos photograph photographs picture pictures shot")
)
LAST_OPENING = 3  # the last place, from 0, at which a word still belongs to the opening


@dataclass(frozen=True)
class WordRules:
    """What the constraints know of each word of a vocabulary; V words."""

    lengths: Tensor  # int64 [V], characters that it adds at most: a space or full stop too
    closing: Tensor  # bool [V], whether it may end a caption
    content: Tensor  # bool [V], whether it is a word with a meaning of its own
    depicting: Tensor  # bool [V], whether "... of" may not open a caption after it
    of: int  # the id of "of"; PAD if there is none
    longest: int  # characters of the longest word that may end a caption

    @classmethod
    def of_vocabulary(cls, vocabulary: Vocabulary, device: torch.device) -> "WordRules":
        words = [word.lower() for word in vocabulary.words[len(SPECIAL_WORDS) :]]
        special = [False] * len(SPECIAL_WORDS)
        lengths = [len("an " if word == "a" else f"{word} ") for word in words]
        closing = [word not in OPEN_ENDED for word in words]
        depicting = [word in DEPICTIONS for word in words]
        return cls(
            lengths=torch.tensor([*(0 for _ in special), *lengths], device=device),
            closing=torch.tensor([*(True for _ in special), *closing], device=device),
            content=torch.tensor([*special, *closing], device=device),
            depicting=torch.tensor([*special, *depicting], device=device),
            of=words.index("of") + len(SPECIAL_WORDS) if "of" in words else PAD,
            longest=max((n for n, last in zip(lengths, closing, strict=True) if last), default=0),
        )


def constrain(
    log_probs: Tensor, tokens: Tensor, options: SearchOptions, rules: WordRules | None
) -> Tensor:
    """Log-probabilities [N, B, V] after `tokens` [N, B, t], with what may not follow at -inf.

    Without rules, which need a vocabulary, no caption is too long in characters, ends or opens in
    the wrong way.
    """
    t = tokens.shape[2]
    allowed = log_probs.clone()
    allowed[..., [PAD, BOS, UNKNOWN]] = NEVER
    if t == options.max_length:
        allowed[..., :EOS] = NEVER
        allowed[..., EOS + 1 :] = NEVER
        return allowed
    if rules is not None:
        _keep_short(allowed, tokens, options, rules)
        if t:
            _open_and_close_well(allowed, tokens, rules)
    if options.block_ngram:
        _block_ngrams(allowed, tokens, options.block_ngram)
    if t < options.min_length:
        goes_on = (allowed[..., EOS + 1 :] > NEVER).any(-1)  # [N, B]
        allowed[..., EOS].masked_fill_(goes_on, NEVER)
    return allowed


def _keep_short(
    log_probs: Tensor, tokens: Tensor, options: SearchOptions, rules: WordRules
) -> None:
    """Forbid, in place, words that leave no room for themselves and an end."""
    room = options.max_characters - rules.lengths[tokens].sum(-1)  # [N, B]
    needed = rules.lengths + rules.longest * ~rules.closing  # [V]
    forbidden = needed > room.unsqueeze(2)  # [N, B, V]
    if tokens.shape[2] == options.max_length - 1:
        forbidden |= ~rules.closing
    log_probs.masked_fill_(forbidden, NEVER)


def _open_and_close_well(log_probs: Tensor, tokens: Tensor, rules: WordRules) -> None:
    last = tokens[:, :, -1]  # [N, B]
    log_probs[..., EOS].masked_fill_(~rules.closing[last], NEVER)
    if tokens.shape[2] <= LAST_OPENING + 1:
        log_probs[..., rules.of].masked_fill_(rules.depicting[last], NEVER)


def _block_ngrams(log_probs: Tensor, tokens: Tensor, n: int) -> None:
    """Forbid, in place, the words that would complete an n-gram of `tokens` [N, B, t] again."""
    t = tokens.shape[2]
    if t < n:
        return
    windows = tokens.unfold(2, n, 1)  # [N, B, t - n + 1, n]
    context = tokens[:, :, t - n + 1 :].unsqueeze(2)  # [N, B, 1, n - 1]
    repeated = (windows[..., :-1] == context).all(-1)  # [N, B, t - n + 1]
    penalty = torch.zeros_like(repeated, dtype=log_probs.dtype).masked_fill(repeated, NEVER)
    log_probs.scatter_add_(2, windows[..., -1], penalty)
