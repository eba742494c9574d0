"""Self-critical training: captions that the model samples are rewarded by their CIDEr-D.

Rennie et al. 2017 (arXiv:1612.00563), with the mean of an image's other samples as the baseline
(Luo 2020, arXiv:2003.09971). It is mixed with cross-entropy: on its own it forgets rare words and
how sentences end.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from captioner.decoder import Decoder
from captioner.model import Preferences
from captioner.training.cider import CiderD
from captioner.training.objectives import Objective
from captioner.vocabulary import BOS, EOS, PAD, UNKNOWN


@dataclass(frozen=True)
class SelfCritical:
    """Policy gradient on `samples` captions an image, `rewarded` of the loss; the rest is `other`.

    The words' end is a word to the reward, so that it tells how captions should end. `preferences`
    are those with which captions of grid features will be searched: they are sampled so too.
    """

    reward: CiderD
    other: Objective
    samples: int
    max_length: int
    rewarded: float
    preferences: Callable[[Tensor], Preferences]

    def __call__(self, decoder: Decoder, grid: Tensor, images: list[int]) -> Tensor:
        with torch.no_grad():
            preferences = self.preferences(grid)
        said = sample(decoder, grid.detach(), self.samples, self.max_length, preferences)
        scores = [
            [self.reward.score(image, _words(ids)) for ids in of_image]
            for image, of_image in zip(images, said.tolist(), strict=True)
        ]
        advantage = above_the_others(torch.tensor(scores, device=grid.device))  # [N, B]
        words = said != PAD  # [N, B, T]
        read = functional.pad(said, (1, 0), value=BOS)[:, :, :-1]
        read = read.masked_fill(~words, PAD)
        hidden = decoder(grid, read)  # [N, B, T, H]
        logits = decoder.predict(hidden[words]).float() + _favoured(preferences, read, words)
        log_probs = logits.log_softmax(-1)  # [words, V]
        chosen = log_probs.gather(1, said[words].unsqueeze(1)).squeeze(1)
        weights = advantage.unsqueeze(2).expand(said.shape)[words]
        policy = -(weights * chosen).mean()
        return self.rewarded * policy + (1 - self.rewarded) * self.other(decoder, grid, images)


def _favoured(preferences: Preferences, read: Tensor, words: Tensor) -> Tensor:
    """What is added to the logits [words, V] after the tokens read so far, of `read` [N, B, T]."""
    n, b, t = words.nonzero(as_tuple=True)
    later = torch.arange(read.shape[2], device=read.device) > t.unsqueeze(1)
    return preferences.after(preferences.favour[n], read[n, b].masked_fill(later, PAD))


def above_the_others(scores: Tensor) -> Tensor:
    """How far each score [N, B] lies above the mean of the other B - 1."""
    b = scores.shape[1]
    return (scores - scores.mean(1, keepdim=True)) * (b / (b - 1))


@torch.no_grad()
def sample(
    decoder: Decoder, grid: Tensor, samples: int, max_length: int, preferences: Preferences
) -> Tensor:
    """Captions drawn from the decoder, int64 [N, samples, T], with EOS if it came, then PAD.

    They are ordered by length, the shortest first, as the decoder likes them.
    """
    memory = decoder.remember(grid)
    state = decoder.init_state(memory, samples)
    tokens = torch.full((len(grid), samples), BOS, device=grid.device)
    favour = preferences.favour.unsqueeze(1).expand(-1, samples, -1)  # [N, B, V]
    said = []
    for _ in range(max_length + 1):
        state = decoder.step(tokens, state, memory)
        favour = preferences.after(favour, tokens.unsqueeze(2))
        logits = decoder.predict(state.language_hidden).float() + favour
        logits[..., [PAD, BOS, UNKNOWN]] = -torch.inf
        drawn = torch.multinomial(logits.softmax(-1).flatten(0, 1), 1).view(tokens.shape)
        ended = (tokens == EOS) | (tokens == PAD)
        tokens = drawn.masked_fill(ended, PAD)
        if bool((tokens == PAD).all()):
            break
        said.append(tokens)
    found = torch.stack(said, dim=2)
    order = (found != PAD).sum(2).argsort(1)
    return found.gather(1, order.unsqueeze(2).expand_as(found))


def _words(ids: Sequence[int]) -> list[int]:
    return [index for index in ids if index != PAD]
