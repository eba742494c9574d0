"""What a training minimises: cross-entropy on the references, softened by teachers."""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor
from torch.nn import functional

from captioner.decoder import Decoder
from captioner.training.distill import SoftTargets
from captioner.training.inputs import References
from captioner.vocabulary import PAD


class Objective(Protocol):
    """A loss, in nats a word, of what the decoder says of some images."""

    def __call__(self, decoder: Decoder, grid: Tensor, images: list[int]) -> Tensor:
        """Grid features [N, L, C] of the images with these indices -> the loss."""


@dataclass(frozen=True)
class CrossEntropy:
    """Teacher forcing on all references of an image at once.

    `taught` is the part of the loss that is the cross-entropy against the teachers' distributions
    in the place of the words that people wrote (Hinton et al. 2015, arXiv:1503.02531).
    """

    references: References
    label_smoothing: float
    soft_targets: SoftTargets | None = None
    taught: float = 0.0

    def __call__(self, decoder: Decoder, grid: Tensor, images: list[int]) -> Tensor:
        read, said = (tokens.to(grid.device) for tokens in self.references.tokens(images))
        words = said != PAD
        hidden = decoder(grid, read)  # [N, B, T, H]
        logits = decoder.predict(hidden[words]).float()  # [words, V]
        loss = functional.cross_entropy(logits, said[words], label_smoothing=self.label_smoothing)
        if self.soft_targets is None:
            return loss
        ids, shares = (part.to(grid.device)[words] for part in self.soft_targets.of(images, said))
        log_probs = logits.log_softmax(-1).gather(1, ids)  # [words, K]
        return (1 - self.taught) * loss - self.taught * (shares * log_probs).sum(-1).mean()
