"""The captioning model: a CNN encoder, an attention LSTM decoder, and word presence."""

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor, nn

from captioner.decoder import Decoder, Memory, State
from captioner.encoder import IMAGENET_MEAN, IMAGENET_STD, Encoder
from captioner.presence import WordPresence


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

    def favour(self, log_presence: Tensor, content: Tensor, weight: float) -> Tensor:
        """What a search adds to the logits of the words of N images: float32 [N, V]."""
        return weight * self.presence.gain(log_presence, content)


class Recall(NamedTuple):
    """Between two steps of a search: what is known of the images and of their hypotheses."""

    memory: Memory
    favour: Tensor | None
    state: State


class WordPredictor:
    """The decoder as beam search sees it, for a batch of grid features [N, L, C].

    `favour` [N, V] is added to the logits: which words each image speaks for.
    """

    def __init__(self, decoder: Decoder, grid: Tensor, favour: Tensor | None = None) -> None:
        self.decoder = decoder
        self.grid = grid
        self.favour = favour

    def start(self) -> Recall:
        memory = self.decoder.remember(self.grid)
        return Recall(memory, self.favour, self.decoder.init_state(memory, sequences=1))

    def step(self, tokens: Tensor, recall: Recall) -> tuple[Tensor, Recall]:
        """Previous tokens [N, B] -> log-probabilities of the next [N, B, V] in float32."""
        state = self.decoder.step(tokens, recall.state, recall.memory)
        logits = self.decoder.predict(state.language_hidden).float()
        if recall.favour is not None:
            logits = logits + recall.favour.unsqueeze(1)
        return logits.log_softmax(-1), recall._replace(state=state)

    def reorder(self, recall: Recall, beams: Tensor, images: Tensor | None) -> Recall:
        memory, favour = recall.memory, recall.favour
        if images is not None:
            memory = Memory(*(part[images] for part in memory))
            favour = None if favour is None else favour[images]
        return Recall(memory, favour, recall.state.select(beams, images))
