"""Word presence: how likely people are to use a word about an image, in any sentence."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

LOG_FLOOR = math.log(1e-5)  # smaller log-probabilities are raised to it: such words are too rare


class WordPresence(nn.Module):
    """A predictor of the share of an image's captions that contain each word.

    Logistic regression on the mean of the grid, after the word detectors of Fang et al. 2015
    (arXiv:1411.4952). It reads the image without the sentence, so it errs differently from the
    decoder: a word on which both agree can be trusted.

    N images, L grid cells, C channels, V words. Before training it predicts the prior for every
    image, and for words outside of `seen` always: a few photographs do not teach what they look
    like.
    """

    usual: Tensor  # [V], the log prior under its name in checkpoints
    seen: Tensor | None  # int64 [K], the ids of the words that have weights; None: all

    def __init__(self, channels: int, words: int, seen: int | None = None) -> None:
        """Create a predictor of all words, or of `seen` words, whose ids come with the weights."""
        super().__init__()
        self.linear = nn.Linear(channels, words if seen is None else seen)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)
        self.register_buffer("usual", torch.full((words,), -math.log(2)))
        self.register_buffer("seen", None if seen is None else torch.arange(seen))

    @property
    def rows(self) -> Tensor:
        """The ids of the words that have weights, int64 [K]."""
        return torch.arange(len(self.usual)) if self.seen is None else self.seen

    @property
    def log_prior(self) -> Tensor:
        """The natural logarithm of each word's share of the training captions [V]."""
        return self.usual

    def forward(self, grid: Tensor) -> Tensor:
        """Return natural logarithms of the shares, float32 [N, V], from grid features [N, L, C]."""
        logits: Tensor = self.linear(grid.mean(1, dtype=self.linear.weight.dtype))
        log_shares = functional.logsigmoid(logits.float()).clamp(min=LOG_FLOOR)
        if self.seen is None:
            return log_shares
        usual = self.log_prior.float().clamp(min=LOG_FLOOR).repeat(len(grid), 1)
        return usual.index_copy_(1, self.seen, log_shares)

    def gain(self, log_presence: Tensor, content: Tensor) -> Tensor:
        """Return how far the image raises each content word above its prior: float32 [N, V].

        `content` bool [V] marks the content words; the gain of all others is zero. The gains of an
        image are centred on zero, so that they favour some content words over others, but not
        content words over function words or the end of the sentence.
        """
        gain = log_presence - self.log_prior.float().clamp(min=LOG_FLOOR)
        mass = log_presence.exp() * content
        centre = (gain * mass).sum(1, keepdim=True) / mass.sum(1, keepdim=True)
        return (gain - centre).where(content, 0.0)
