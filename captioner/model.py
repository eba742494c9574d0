"""The captioning model: a CNN encoder, an attention LSTM decoder, and word presence."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from captioner.decoder import Decoder, Memory, State
from captioner.encoder import IMAGENET_MEAN, IMAGENET_STD, Encoder
from captioner.presence import WordPresence
from captioner.search_options import SearchOptions


@dataclass(frozen=True)
class ModelConfig:
    """All that is needed to build the model before its weights are loaded.

    `image_size` is the side of the square, in pixels, that photographs are squeezed to; `mean`
    and `std` are per channel, for pixels from 0 to 1.
    """

    encoder: str = "efficientnet_lite0"
    image_size: int = 224
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    hidden: int = 512
    heads: int = 8
    dropout: float = 0.3


class CaptionModel(nn.Module):
    """Pixels and words -> word probabilities; `words` is the size of the vocabulary."""

    def __init__(
        self, config: ModelConfig, words: int, *, encoder_weights: str | None = None
    ) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(
            config.encoder, weights=encoder_weights, mean=config.mean, std=config.std
        )
        channels = self.encoder.channels()
        self.decoder = Decoder(
            channels,
            words,
            hidden=config.hidden,
            heads=config.heads,
            dropout=config.dropout,
        )
        self.presence = WordPresence(channels, words)

    def forward(self, pixels: Tensor, tokens: Tensor) -> Tensor:
        """uint8 pixels [N, S, S, 3] and tokens [N, B, T] -> language states [N, B, T, H]."""
        return self.decoder(self.encoder(pixels), tokens)

    def preferences(
        self, log_presence: Tensor, content: Tensor, options: SearchOptions
    ) -> "Preferences":
        """For N images with `log_presence` [N, V]; `content` bool [V] says which words are such."""
        favour = options.presence_weight * self.presence.gain(log_presence, content)
        return Preferences(favour, -options.repeat_penalty * content)


class Preferences(NamedTuple):
    """What a search adds to the logits of the words.

    A word that has been said is favoured no more, and content words are not said twice lightly
    (Keskar et al. 2019, arXiv:1909.05858, penalise it too).
    """

    favour: Tensor  # [N, V], for words not said yet
    said: Tensor  # [V], for those that have been

    def after(self, favour: Tensor, tokens: Tensor) -> Tensor:
        """What is added [..., V], once these tokens [..., T] have been said too."""
        return favour.scatter(-1, tokens, self.said[tokens])


class Recall(NamedTuple):
    """Between two steps of a search: what is known of the images and of their hypotheses."""

    memory: Memory
    favour: Tensor  # [N, B, V]
    state: State


class WordPredictor:
    """The decoder as beam search sees it, for a batch of grid features [N, L, C]."""

    def __init__(self, decoder: Decoder, grid: Tensor, preferences: Preferences) -> None:
        self.decoder = decoder
        self.grid = grid
        self.preferences = preferences

    def start(self) -> Recall:
        memory = self.decoder.remember(self.grid)
        favour = self.preferences.favour.unsqueeze(1)
        return Recall(memory, favour, self.decoder.init_state(memory, sequences=1))

    def step(self, tokens: Tensor, recall: Recall) -> tuple[Tensor, Recall]:
        """Previous tokens [N, B] -> log-probabilities of the next [N, B, V] in float32."""
        state = self.decoder.step(tokens, recall.state, recall.memory)
        favour = self.preferences.after(recall.favour, tokens.unsqueeze(2))
        logits = self.decoder.predict(state.language_hidden).float() + favour
        return logits.log_softmax(-1), Recall(recall.memory, favour, state)

    def reorder(self, recall: Recall, beams: Tensor, images: Tensor | None) -> Recall:
        memory = recall.memory
        if images is None:
            images = torch.arange(len(beams), device=beams.device)
        else:
            memory = Memory(*(part[images] for part in memory))
        favour = recall.favour[images[:, None], beams]
        return Recall(memory, favour, recall.state.select(beams, images))
