"""Word presence: which words people would use of an image, in whatever sentence."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

LEAST = math.log(1e-5)  # log-probabilities below are one: too rare to be told apart


class WordPresence(nn.Module):
    """For each word, the share of people in whose captions of an image it would be.

    Logistic regression on the mean of the grid, after the word detectors of Fang et al. 2015
    (arXiv:1411.4952). It reads the image without the sentence, so it is wrong in other ways than
    the decoder: where both agree on a word, the word can be trusted.

    N images, L grid cells, C channels, V words. Untrained, it expects of every image the usual.
    """

    usual: Tensor  # [V], natural logarithms of each word's share of the training captions

    def __init__(self, channels: int, words: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, words)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)
        self.register_buffer("usual", torch.full((words,), -math.log(2)))

    def forward(self, grid: Tensor) -> Tensor:
        """Grid features [N, L, C] -> natural logarithms of the shares, float32 [N, V]."""
        logits: Tensor = self.linear(grid.mean(1, dtype=self.linear.weight.dtype))
        return functional.logsigmoid(logits.float()).clamp(min=LEAST)

    def gain(self, log_presence: Tensor, content: Tensor) -> Tensor:
        """How far the image raises each content word above the usual: float32 [N, V].

        `content` [V] says which words these are; the others stay as they are. The gain of an
        image's content words is centred on zero, so that it favours some over others and not
        content words over function words or the end of the sentence.
        """
        gain = log_presence - self.usual.float().clamp(min=LEAST)
        mass = log_presence.exp() * content
        centre = (gain * mass).sum(1, keepdim=True) / mass.sum(1, keepdim=True)
        return (gain - centre).where(content, 0.0)
