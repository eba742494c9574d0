"""Batched beam search over any step function, with constraints inside the search.

One tensor program serves the whole batch: N images, B beams, V words, no loop over images or
beams. Each step keeps the B best unfinished hypotheses of an image; a hypothesis whose end of
sentence ranks among the B best continuations moves to the finished ones. An image is done when B
of its hypotheses have finished: they are frozen, and the image leaves the batch with the next ones
that do. Finished hypotheses are ranked by log-probability over the length penalty of Wu et al. 2016
(arXiv:1609.08144, equation 14).
"""

from typing import NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor

from captioner.constraints import NEVER, WordRules, constrain
from captioner.search_options import SearchOptions
from captioner.vocabulary import BOS, EOS, PAD

S = TypeVar("S")
GPU_CHECK_INTERVAL = 4  # steps between two looks at which images are done: each waits for the GPU
SHRINK_BELOW = 0.75  # the share of images still searched, below which the others leave the batch


class Stepper(Protocol[S]):
    """The two operations through which the search meets a model, and what they start from."""

    def start(self) -> S:
        """The state before the first word: one hypothesis, still empty, for each image."""

    def step(self, tokens: Tensor, state: S) -> tuple[Tensor, S]:
        """Previous tokens [N, B] -> log-probabilities of the next ones [N, B, V]."""

    def reorder(self, state: S, beams: Tensor, images: Tensor | None) -> S:
        """The state in which hypothesis b of image n is the former hypothesis `beams[n, b]`.

        With `images` [N'], image n is the former image `images[n]`; the others are done.
        """


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
    stepper: Stepper[S],
    images: int,
    options: SearchOptions,
    device: torch.device | str = "cpu",
    rules: WordRules | None = None,
) -> Hypotheses:
    """Search the captions of `images` images at once; `rules` are those of the words' text."""
    found = _no_hypotheses(images, options.beam_size, options.max_length, device)
    live = _no_hypotheses(images, 1, options.max_length, device)
    live.log_probs.zero_()  # one empty hypothesis an image
    batch = _Batch(torch.arange(images, device=device), live, found)
    tokens = torch.full((images, 1), BOS, device=device)
    state = stepper.start()
    interval = GPU_CHECK_INTERVAL if torch.device(device).type == "cuda" else 1
    for t in range(options.max_length + 1):
        log_probs, state = stepper.step(tokens, state)  # [N, B, V]
        allowed = constrain(log_probs, batch.live.tokens[:, :, :t], options, rules)
        batch, beams = _advance(batch, allowed, t, options)
        if t == options.max_length:
            break
        remaining = _remaining(batch) if (t + 1) % interval == 0 else None
        if remaining is not None:
            _store(batch, found)
            if not len(remaining):
                return found
            batch, beams = batch.only(remaining), beams[remaining]
        tokens = batch.live.tokens[:, :, t]
        state = stepper.reorder(state, beams, remaining)
    _store(batch, found)
    return found


class _Batch(NamedTuple):
    """The images that are still searched: their places among all, and their hypotheses."""

    places: Tensor  # [N]
    live: Hypotheses  # up to B unfinished ones, the best first
    finished: Hypotheses

    def only(self, images: Tensor) -> "_Batch":
        live, finished = (Hypotheses(*(part[images] for part in parts)) for parts in self[1:])
        return _Batch(self.places[images], live, finished)


def _advance(
    batch: _Batch, log_probs: Tensor, t: int, options: SearchOptions
) -> tuple[_Batch, Tensor]:
    """One word more; also which of the former hypotheses [N, B] each live one goes on from."""
    grown, parents = _grow(batch.live, log_probs, t, options.beam_size)
    finished = _finish(batch.finished, grown, t, options)
    live, kept = _continue(grown, t, options.beam_size)
    return _Batch(batch.places, live, finished), parents.gather(1, kept)


def _remaining(batch: _Batch) -> Tensor | None:
    """The images that are not done, if they are so few that the others should leave the batch."""
    remaining = (~_done(batch.finished)).view(-1).nonzero().view(-1)
    return remaining if len(remaining) <= SHRINK_BELOW * len(batch.places) else None


def _store(batch: _Batch, found: Hypotheses) -> None:
    """Write what is finished of the batch to its places among all."""
    for target, part in zip(found, batch.finished, strict=True):
        target[batch.places] = part


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


def _grow(live: Hypotheses, log_probs: Tensor, t: int, beams: int) -> tuple[Hypotheses, Tensor]:
    """The 2B best continuations of each image's hypotheses, best first, and their parents [N, 2B].

    2B, so that B unfinished ones remain whatever number of them ends here.
    """
    n, _, words = log_probs.shape
    totals = (live.log_probs.unsqueeze(2) + log_probs).view(n, -1)  # [N, B * V]
    best, places = totals.topk(min(2 * beams, totals.shape[1]))
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
    log_probs, kept = unfinished.topk(min(beams, unfinished.shape[1]))
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
