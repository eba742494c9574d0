"""Batched beam search over any step function, with constraints inside the search.

One tensor program serves the whole batch: N images, B beams, V words, no loop over images or
beams. Each step keeps the B best unfinished hypotheses of an image; a hypothesis whose end of
sentence ranks among the B best continuations moves to the finished ones. An image is done, and
frozen, when B of its hypotheses have finished. Finished hypotheses are ranked by log-probability
over the length penalty of Wu et al. 2016 (arXiv:1609.08144, equation 14).
"""

from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor

from captioner.vocabulary import BOS, EOS, PAD, UNKNOWN

S = TypeVar("S")
NEVER = float("-inf")
DONE_CHECK_INTERVAL = 4  # steps between two looks at whether all images are done (one device sync)


@dataclass(frozen=True)
class SearchOptions:
    """How captions are searched; lengths are in words.

    `length_penalty` is Wu et al.'s alpha: 0 ranks by log-probability alone, greater values
    favour longer captions. No `block_ngram` words are said twice in a caption (0: no blocking).
    """

    beam_size: int = 3
    min_length: int = 3
    max_length: int = 20
    length_penalty: float = 0.7
    block_ngram: int = 3

    def __post_init__(self) -> None:
        if self.beam_size < 1:
            raise ValueError(f"beam_size must be at least 1, not {self.beam_size}")
        if not 0 <= self.min_length <= self.max_length or self.max_length < 1:
            raise ValueError(
                "lengths must satisfy 0 <= min_length <= max_length and max_length >= 1, "
                f"not {self.min_length} and {self.max_length}"
            )
        if self.length_penalty < 0:
            raise ValueError(f"length_penalty must not be negative, not {self.length_penalty}")
        if self.block_ngram < 0:
            raise ValueError(f"block_ngram must not be negative, not {self.block_ngram}")


class Stepper(Protocol[S]):
    """The two operations through which the search meets a model."""

    def start(self, beams: int) -> S:
        """The state before the first word, for `beams` hypotheses of each image."""

    def step(self, tokens: Tensor, state: S) -> tuple[Tensor, S]:
        """Previous tokens [N, B] -> log-probabilities of the next ones [N, B, V]."""

    def reorder(self, state: S, beams: Tensor) -> S:
        """The state in which hypothesis b of an image is its former hypothesis `beams`[., b]."""


class Hypotheses(NamedTuple):
    """Finished hypotheses, the best first; K = `beam_size`, T = `max_length` + 1.

    A hypothesis that does not exist (fewer than K finished) has the score -inf.
    """

    tokens: Tensor  # [N, K, T] int64, EOS at the end, then PAD
    token_log_probs: Tensor  # [N, K, T] float32, zero after EOS
    log_probs: Tensor  # [N, K] float32, the sum
    scores: Tensor  # [N, K] float32, log_probs over the length penalty


@torch.inference_mode()
def beam_search(
    stepper: Stepper[S], images: int, options: SearchOptions, device: torch.device | str = "cpu"
) -> Hypotheses:
    """Search the captions of `images` images at once."""
    beams = options.beam_size
    live = _no_hypotheses(images, beams, options.max_length, device)
    live.log_probs[:, 0] = 0  # one empty hypothesis an image; the other beams are still vacant
    finished = _no_hypotheses(images, beams, options.max_length, device)
    last = torch.full((images, beams), BOS, device=device)
    state = stepper.start(beams)
    for t in range(options.max_length + 1):
        log_probs, state = stepper.step(last, state)  # [N, B, V]
        allowed = _constrain(log_probs, live.tokens, t, options)
        grown, parents = _grow(live, allowed, t)
        finished = _finish(finished, grown, t, options)
        live, kept = _continue(grown, t, beams)
        if t == options.max_length or (t % DONE_CHECK_INTERVAL == 0 and _all_done(finished)):
            break
        last = live.tokens[:, :, t]
        state = stepper.reorder(state, parents.gather(1, kept))
    return finished


def _no_hypotheses(
    images: int, beams: int, max_length: int, device: torch.device | str
) -> Hypotheses:
    shape = (images, beams, max_length + 1)
    return Hypotheses(
        torch.full(shape, PAD, device=device),
        torch.zeros(shape, device=device),
        torch.full(shape[:2], NEVER, device=device),
        torch.full(shape[:2], NEVER, device=device),
    )


def _constrain(log_probs: Tensor, tokens: Tensor, t: int, options: SearchOptions) -> Tensor:
    """Log-probabilities [N, B, V] with what may not follow set to -inf."""
    if t == options.max_length:
        allowed = torch.full_like(log_probs, NEVER)
        allowed[..., EOS] = log_probs[..., EOS]
        return allowed
    allowed = log_probs.clone()
    allowed[..., [PAD, BOS, UNKNOWN]] = NEVER
    if t < options.min_length:
        allowed[..., EOS] = NEVER
    if options.block_ngram:
        _block_ngrams(allowed, tokens[:, :, :t], options.block_ngram)
    return allowed


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


def _grow(live: Hypotheses, log_probs: Tensor, t: int) -> tuple[Hypotheses, Tensor]:
    """The 2B best continuations of each image's hypotheses, best first, and their parents [N, 2B].

    2B, so that B unfinished ones remain whatever number of them ends here.
    """
    n, beams, words = log_probs.shape
    totals = (live.log_probs.unsqueeze(2) + log_probs).view(n, -1)  # [N, B * V]
    best, places = totals.topk(min(2 * beams, beams * words))
    parents = places // words
    grown = _take(live, parents)
    grown.tokens[:, :, t] = places % words
    grown.token_log_probs[:, :, t] = log_probs.view(n, -1).gather(1, places)
    return grown._replace(log_probs=best), parents


def _finish(finished: Hypotheses, grown: Hypotheses, t: int, options: SearchOptions) -> Hypotheses:
    """Add the hypotheses that end at step t, among the B best, to images that are not done."""
    beams = options.beam_size
    ended = (grown.tokens[:, :beams, t] == EOS) & ~_done(finished)
    penalty = ((5 + t + 1) / 6) ** options.length_penalty
    scores = (grown.log_probs[:, :beams] / penalty).masked_fill(~ended, NEVER)
    ending = Hypotheses(*(part[:, :beams] for part in grown))._replace(scores=scores)
    pool = Hypotheses(*(torch.cat(parts, dim=1) for parts in zip(finished, ending, strict=True)))
    best = pool.scores.topk(beams).indices
    return _take(pool, best)


def _continue(grown: Hypotheses, t: int, beams: int) -> tuple[Hypotheses, Tensor]:
    """The B best hypotheses that do not end at step t, and their places [N, B] in `grown`."""
    unfinished = grown.log_probs.masked_fill(grown.tokens[:, :, t] == EOS, NEVER)
    log_probs, kept = unfinished.topk(beams)
    return _take(grown, kept)._replace(log_probs=log_probs), kept


def _take(hypotheses: Hypotheses, places: Tensor) -> Hypotheses:
    """Hypotheses `places` [N, K] of each image."""
    sequences = places.unsqueeze(2).expand(-1, -1, hypotheses.tokens.shape[2])
    return Hypotheses(
        hypotheses.tokens.gather(1, sequences),
        hypotheses.token_log_probs.gather(1, sequences),
        hypotheses.log_probs.gather(1, places),
        hypotheses.scores.gather(1, places),
    )


def _done(finished: Hypotheses) -> Tensor:
    """Which images have all their hypotheses finished: [N, 1] bool."""
    return (finished.scores > NEVER).all(1, keepdim=True)


def _all_done(finished: Hypotheses) -> bool:
    return bool(_done(finished).all())
