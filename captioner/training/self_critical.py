"""Self-critical training: a policy gradient with the CIDEr-D of sampled captions as reward.

Rennie et al. 2017 (arXiv:1612.00563), with the mean of an image's other samples as the baseline
(Luo 2020, arXiv:2003.09971). It is mixed with cross-entropy: on its own it loses rare words and
proper ends of sentences.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from captioner.device import send
from captioner.lstm.decoder import Decoder
from captioner.lstm.model import LogitBias
from captioner.lstm.vocabulary import BOS, EOS, PAD, UNKNOWN
from captioner.training.cider import CiderD
from captioner.training.losses import Loss, at
from captioner.training.processes import all_true, share


@dataclass(frozen=True)
class SelfCritical:
    """A policy gradient on `samples` captions per image, mixed with `cross_entropy`.

    `reward` counts EOS as a word, so that it also rewards proper endings. `logit_bias` returns the
    bias that a search over the grid features would use; sampling uses it too.
    """

    reward: CiderD
    cross_entropy: Loss
    samples: int
    max_length: int
    reward_weight: float  # the share of the policy gradient in the loss
    logit_bias: Callable[[Tensor], LogitBias]

    def __call__(self, decoder: Decoder, grid: Tensor, images: list[int]) -> Tensor:
        with torch.no_grad():
            bias = self.logit_bias(grid)
        device = grid.device
        targets = sample(decoder, grid.detach(), self.samples, self.max_length, bias).cpu()
        words = targets != PAD  # [N, B, T]
        inputs = functional.pad(targets, (1, 0), value=BOS)[:, :, :-1].masked_fill(~words, PAD)
        hidden = at(words, decoder(grid, inputs))  # [words, H]
        logits = decoder.predict(hidden).float() + _bias_at(words, inputs, bias)
        log_probs = logits.log_softmax(-1)  # [words, V]
        chosen = log_probs.gather(1, send(targets[words], device).unsqueeze(1)).squeeze(1)
        supervised = self.cross_entropy(decoder, grid, images)
        advantage = leave_one_out_advantage(self._rewards(images, targets))  # while a GPU computes
        advantage = send(advantage.unsqueeze(2).expand(targets.shape)[words], device)
        policy_loss = share(send(words.sum().float(), device)) * -(advantage * chosen).mean()
        return self.reward_weight * policy_loss + (1 - self.reward_weight) * supervised

    def _rewards(self, images: list[int], targets: Tensor) -> Tensor:
        """Return the reward of each sampled caption: float32 [N, B] for targets [N, B, T]."""
        rewards = [
            [self.reward.score(image, [word for word in ids if word != PAD]) for ids in of_image]
            for image, of_image in zip(images, targets.tolist(), strict=True)
        ]
        return torch.tensor(rewards)


def _bias_at(words: Tensor, inputs: Tensor, logit_bias: LogitBias) -> Tensor:
    """Return the bias [words, V] at each position in `words` [N, B, T], after its inputs so far.

    Both `words` and `inputs` are on the CPU.
    """
    device = logit_bias.unsaid.device
    n, b, t = words.nonzero(as_tuple=True)
    later = torch.arange(inputs.shape[2]) > t.unsqueeze(1)
    said = send(inputs[n, b].masked_fill(later, PAD), device)
    return logit_bias.after(logit_bias.unsaid[send(n, device)], said)


def leave_one_out_advantage(rewards: Tensor) -> Tensor:
    """Return how far each reward [N, B] lies above the mean of the other B - 1."""
    b = rewards.shape[1]
    return (rewards - rewards.mean(1, keepdim=True)) * (b / (b - 1))


@torch.no_grad()
def sample(
    decoder: Decoder, grid: Tensor, samples: int, max_length: int, logit_bias: LogitBias
) -> Tensor:
    """Sample captions from the decoder: int64 [N, samples, T], up to EOS if drawn, then PAD.

    They are sorted by length, shortest first, for efficient teacher forcing. Raises
    FloatingPointError, in all processes, for a decoder that has diverged in one of them.
    """
    memory = decoder.init_memory(grid)
    state = decoder.init_state(memory, samples)
    tokens = torch.full((len(grid), samples), BOS, device=grid.device)
    bias = logit_bias.unsaid.unsqueeze(1).expand(-1, samples, -1)  # [N, B, V]
    finite = torch.ones((), dtype=torch.bool, device=grid.device)
    steps = []
    for _ in range(max_length + 1):
        state = decoder.step(tokens, state, memory)
        bias = logit_bias.after(bias, tokens.unsqueeze(2))
        logits = decoder.predict(state.language_hidden).float() + bias
        finite &= logits.isfinite().all()
        logits = logits.nan_to_num()  # nothing can be drawn by others
        logits[..., [PAD, BOS, UNKNOWN]] = -torch.inf
        drawn = torch.multinomial(logits.softmax(-1).flatten(0, 1), 1).view(tokens.shape)
        ended = (tokens == EOS) | (tokens == PAD)
        tokens = drawn.masked_fill(ended, PAD)
        if bool((tokens == PAD).all()):
            break
        steps.append(tokens)
    if not all_true(finite):
        raise FloatingPointError("scores of words are not finite")
    captions = torch.stack(steps, dim=2)
    order = (captions != PAD).sum(2).argsort(1)
    return captions.gather(1, order.unsqueeze(2).expand_as(captions))
