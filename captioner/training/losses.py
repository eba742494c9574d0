"""The supervised loss: cross-entropy with the references, and distillation from teachers."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from captioner.device import send
from captioner.lstm.decoder import Decoder
from captioner.lstm.vocabulary import PAD
from captioner.training.data.tensors import References
from captioner.training.distill import SoftTargets
from captioner.training.processes import share


class Loss(Protocol):
    """A loss of the decoder over a batch of images, in nats per word."""

    def __call__(self, decoder: Decoder, grid: Tensor, images: list[int]) -> Tensor:
        """Return the loss for the grid features [N, L, C] of the images with these indices."""


@dataclass(frozen=True)
class CrossEntropy:
    """Cross-entropy under teacher forcing, with all references of an image at once.

    `distillation_weight` is the share of the loss in which the teachers' distributions replace the
    words of the references as targets (Hinton et al. 2015, arXiv:1503.02531).

    An image counts by the square root of the number of its references. If all references counted
    the same, photographs with a single one would hardly count beside those with many.
    """

    references: References
    label_smoothing: float
    soft_targets: SoftTargets | None = None
    distillation_weight: float = 0.0

    def __call__(self, decoder: Decoder, grid: Tensor, images: list[int]) -> Tensor:
        device = grid.device
        inputs, targets = self.references.tokens(images)  # on the CPU: nothing waits for a GPU
        words = targets != PAD
        hidden = at(words, decoder(grid, inputs))  # [words, H]
        logits = decoder.predict(hidden).float()  # [words, V]
        weights = self._weights(images).view(-1, 1, 1).expand(targets.shape)[words]
        total = weights.sum()
        weights = send(weights / total, device)
        losses = cross_entropy(
            logits,
            send(targets[words], device),
            label_smoothing=self.label_smoothing,
            reduction="none",
        )
        loss = (weights * losses).sum()
        if self.soft_targets is not None:
            soft = self.soft_targets.of(images, targets)
            ids, probabilities = (send(part[words], device) for part in soft)
            log_probs = logits.log_softmax(-1).gather(1, ids)  # [words, K]
            distillation = -(weights * (probabilities * log_probs).sum(-1)).sum()
            weight = self.distillation_weight
            loss = (1 - weight) * loss + weight * distillation
        return share(send(total, device)) * loss

    def _weights(self, images: list[int]) -> Tensor:
        """Return the weight of a word of each image's references: float32 [N]."""
        return torch.tensor([len(self.references.ids[image]) ** -0.5 for image in images])


def at(words: Tensor, states: Tensor) -> Tensor:
    """Return the states [N, B, T, H] of some words, as [words, H]; bool [N, B, T] on the CPU."""
    places = words.flatten().nonzero().squeeze(1)
    return states.flatten(0, 2)[send(places, states.device)]
