"""The captioning model: a CNN encoder, an attention LSTM decoder, and word presence."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from captioner.lstm.decoder import Decoder, Memory, State
from captioner.lstm.encoder import IMAGENET_MEAN, IMAGENET_STD, Encoder
from captioner.lstm.inference.folded import FoldedDecoder
from captioner.lstm.presence import WordPresence
from captioner.search_options import SearchOptions


@dataclass(frozen=True)
class ModelConfig:
    """The architecture of a model and the preprocessing of its images.

    `image_size` is the side in pixels of the square that images are resized to; `mean` and `std`
    are per channel, for pixel values from 0 to 1. A `detector`, if any, sees the same image
    in a square of `detector_size` pixels, by default of the same size. `decoder_channels` is the
    number of channels of the grid, from the first on, that the decoder reads, and `seen_words` that
    of the words whose presence is predicted, if not all.
    """

    encoder: str = "efficientnet_lite0"
    image_size: int = 224
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    hidden: int = 512
    heads: int = 8
    dropout: float = 0.3
    detector: str | None = None
    detector_size: int | None = None
    decoder_channels: int | None = None
    seen_words: int | None = None


class CaptionModel(nn.Module):
    """A model from pixels and words to word probabilities; `words` is the vocabulary's size."""

    def __init__(
        self, config: ModelConfig, words: int, *, encoder_weights: str | None = None
    ) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(
            config.encoder,
            weights=encoder_weights,
            mean=config.mean,
            std=config.std,
            detector=config.detector,
            detector_size=config.detector_size,
        )
        channels = self.encoder.channels()
        self.decoder = Decoder(
            config.decoder_channels or channels,
            words,
            hidden=config.hidden,
            heads=config.heads,
            dropout=config.dropout,
        )
        self.presence = WordPresence(channels, words, config.seen_words)

    def forward(self, pixels: Tensor, tokens: Tensor) -> Tensor:
        """Return language states [N, B, T, H] for pixels uint8 [N, S, S, 3], tokens [N, B, T]."""
        return self.decoder(self.encoder(pixels), tokens)


class LogitBias(NamedTuple):
    """Terms added to the logits: a gain for words the image supports, a penalty for repeating them.

    The penalty replaces the gain once a hypothesis contains the word (compare Keskar et al. 2019,
    arXiv:1909.05858).
    """

    unsaid: Tensor  # [N, V], for words the hypothesis does not contain yet
    repeated: Tensor  # [V], for words it contains

    @classmethod
    def of(
        cls, presence: WordPresence, log_presence: Tensor, content: Tensor, options: SearchOptions
    ) -> "LogitBias":
        """Return the bias for `log_presence` [N, V]; `content` bool [V] marks the content words."""
        unsaid = options.presence_weight * presence.gain(log_presence, content)
        return cls(unsaid, -options.repeat_penalty * content)

    def after(self, bias: Tensor, tokens: Tensor) -> Tensor:
        """Return `bias` [..., V] with `tokens` [..., T] now counted as repeated."""
        return bias.scatter(-1, tokens, self.repeated[tokens])

    def add_to(self, logits: Tensor, said: Tensor) -> Tensor:
        """Add the bias to `logits` [N, B, V], in place, where hypotheses contain `said` [N, B, T].

        It saves a search the bias [N, B, V] that would follow its hypotheses.
        """
        repeated = logits.gather(2, said) + self.repeated[said]
        logits += self.unsaid.unsqueeze(1)
        return logits.scatter_(2, said, repeated)


class SearchState(NamedTuple):
    """The state of a search between two steps, for the images and their hypotheses."""

    memory: Memory
    bias: LogitBias
    said: Tensor  # [N, B, t], the words of each hypothesis
    decoder: State


class WordPredictor:
    """The decoder as beam search sees it, for a batch of grid features [N, L, C]."""

    def __init__(
        self, decoder: Decoder | FoldedDecoder, grid: Tensor, logit_bias: LogitBias
    ) -> None:
        self.decoder = decoder
        self.grid = grid
        self.logit_bias = logit_bias

    def start(self) -> SearchState:
        memory = self.decoder.init_memory(self.grid)
        said = torch.empty(len(self.grid), 1, 0, dtype=torch.long, device=self.grid.device)
        state = self.decoder.init_state(memory, sequences=1)
        return SearchState(memory, self.logit_bias, said, state)

    def step(self, tokens: Tensor, state: SearchState) -> tuple[Tensor, SearchState]:
        """Return log-probabilities float32 [N, B, V] of the words after `tokens` [N, B]."""
        memory, bias, said, decoder_state = state
        decoder_state = self.decoder.step(tokens, decoder_state, memory)
        said = torch.cat([said, tokens.unsqueeze(2)], dim=2)
        logits = self.decoder.predict(decoder_state.language_hidden).float()
        log_probs = bias.add_to(logits, said).log_softmax(-1)
        return log_probs, SearchState(memory, bias, said, decoder_state)

    def reorder(self, state: SearchState, beams: Tensor, images: Tensor | None) -> SearchState:
        memory, bias, said, decoder_state = state
        if images is None:
            images = torch.arange(len(beams), device=beams.device)
        else:
            memory = Memory(*(part[images] for part in memory))
            bias = bias._replace(unsaid=bias.unsaid[images])
        said = said[images[:, None], beams]
        return SearchState(memory, bias, said, decoder_state.select(beams, images))
