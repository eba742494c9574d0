"""Batched beam search over any step function, with constraints inside the search.

One tensor program serves the whole batch: N images, B beams, V words, no loop over images or
beams. Each step keeps the B best unfinished hypotheses of an image; a hypothesis whose end of
sentence ranks among the B best continuations joins the finished ones. An image is done when B of
its hypotheses have finished; done images leave the batch several at a time. Finished hypotheses are
ranked by log-probability over the length penalty of Wu et al. 2016 (arXiv:1609.08144, equation 14).
"""

from typing import NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor

from captioner.lstm.constraints import NEG_INF, WordRules, constrain
from captioner.lstm.vocabulary import BOS, EOS, PAD
from captioner.search_options import SearchOptions

S = TypeVar("S")
GPU_CHECK_INTERVAL = 4  # steps between two checks for done images: each waits for the GPU
SHRINK_BELOW = 0.75  # done images leave the batch once at most this share of it remains


class Stepper(Protocol[S]):
    """A model as the search sees it: an initial state and two operations."""

    def start(self) -> S:
        """Return the state before the first word: one empty hypothesis for each image."""

    def step(self, tokens: Tensor, state: S) -> tuple[Tensor, S]:
        """Return log-probabilities [N, B, V] of the words after `tokens` [N, B], and a state."""

    def reorder(self, state: S, beams: Tensor, images: Tensor | None) -> S:
        """Return the state whose hypothesis b of image n is the former `beams[n, b]`.

        With `images` [N'], image n is the former image `images[n]`; the others are done.
        """


class Hypotheses(NamedTuple):
    """Finished hypotheses, best first; K = `beam_size`, T = `max_length` + 1.

    Where fewer than K have finished, the missing ones have the score -inf.
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
    """Search captions for `images` images at once; `rules` constrain the text of the words."""
    found = _no_hypotheses(images, options.beam_size, options.max_length, device)
    live = _no_hypotheses(images, 1, options.max_length, device)
    live.log_probs.zero_()  # one empty hypothesis for each image
    batch = _Batch(torch.arange(images, device=device), live, found)
    tokens = torch.full((images, 1), BOS, device=device)
    state = stepper.start()
    interval = 1 if torch.device(device).type == "cpu" else GPU_CHECK_INTERVAL
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
    """The images still being searched: their indices among all images, and their hypotheses."""

    places: Tensor  # [N]
    live: Hypotheses  # up to B unfinished ones, best first
    finished: Hypotheses

    def only(self, images: Tensor) -> "_Batch":
        """Return the batch reduced to `images`."""
        live, finished = (Hypotheses(*(part[images] for part in parts)) for parts in self[1:])
        return _Batch(self.places[images], live, finished)


def _advance(
    batch: _Batch, log_probs: Tensor, t: int, options: SearchOptions
) -> tuple[_Batch, Tensor]:
    """Add one word; also return the former hypothesis [N, B] that each live one continues."""
    grown, parents = _grow(batch.live, log_probs, t, options.beam_size)
    finished = _finish(batch.finished, grown, t, options)
    live, kept = _continue(grown, t, options.beam_size)
    return _Batch(batch.places, live, finished), parents.gather(1, kept)


def _remaining(batch: _Batch) -> Tensor | None:
    """Return the images that are not done, or None if done ones need not leave the batch yet."""
    remaining = (~_done(batch.finished)).view(-1).nonzero().view(-1)
    return remaining if len(remaining) <= SHRINK_BELOW * len(batch.places) else None


def _store(batch: _Batch, found: Hypotheses) -> None:
    """Write the finished hypotheses of the batch to `found`, which holds those of all images."""
    for target, part in zip(found, batch.finished, strict=True):
        target[batch.places] = part


def _no_hypotheses(
    images: int, beams: int, max_length: int, device: torch.device | str
) -> Hypotheses:
    shape = (images, beams, max_length + 1)
    return Hypotheses(
        torch.full(shape, PAD, device=device),
        torch.zeros(shape, device=device),
        torch.full(shape[:2], NEG_INF, device=device),
        torch.full(shape[:2], NEG_INF, device=device),
    )


def _grow(live: Hypotheses, log_probs: Tensor, t: int, beams: int) -> tuple[Hypotheses, Tensor]:
    """Return the 2B best continuations of each image, best first, and their parents [N, 2B].

    Since at most B of them end here, at least B unfinished ones remain.
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
    """Add those of the B best hypotheses that end at step t, for images that are not done."""
    beams = options.beam_size
    ended = (grown.tokens[:, :beams, t] == EOS) & ~_done(finished)
    penalty = ((5 + t + 1) / 6) ** options.length_penalty
    scores = (grown.log_probs[:, :beams] / penalty).masked_fill(~ended, NEG_INF)
    ending = Hypotheses(*(part[:, :beams] for part in grown))._replace(scores=scores)
    pool = Hypotheses(*(torch.cat(parts, dim=1) for parts in zip(finished, ending, strict=True)))
    best = pool.scores.topk(beams).indices
    return _take(pool, best)


def _continue(grown: Hypotheses, t: int, beams: int) -> tuple[Hypotheses, Tensor]:
    """Return the B best hypotheses that do not end at step t, and their indices [N, B]."""
    unfinished = grown.log_probs.masked_fill(grown.tokens[:, :, t] == EOS, NEG_INF)
    log_probs, kept = unfinished.topk(min(beams, unfinished.shape[1]))
    return _take(grown, kept)._replace(log_probs=log_probs), kept


def _take(hypotheses: Hypotheses, places: Tensor) -> Hypotheses:
    """Return the hypotheses with the indices `places` [N, K] of each image."""
    sequences = places.unsqueeze(2).expand(-1, -1, hypotheses.tokens.shape[2])
    return Hypotheses(
        hypotheses.tokens.gather(1, sequences),
        hypotheses.token_log_probs.gather(1, sequences),
        hypotheses.log_probs.gather(1, places),
        hypotheses.scores.gather(1, places),
    )


def _done(finished: Hypotheses) -> Tensor:
    """Return which images have all their hypotheses finished: bool [N, 1]."""
    return (finished.scores > NEG_INF).all(1, keepdim=True)
