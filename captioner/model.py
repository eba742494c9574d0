"""The captioning model: a CNN encoder and an attention LSTM decoder."""

from dataclasses import dataclass

from torch import Tensor, nn

from captioner.decoder import Decoder, Memory, State
from captioner.encoder import IMAGENET_MEAN, IMAGENET_STD, Encoder


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
        self.decoder = Decoder(
            self.encoder.channels(),
            words,
            hidden=config.hidden,
            heads=config.heads,
            dropout=config.dropout,
        )

    def forward(self, pixels: Tensor, tokens: Tensor) -> Tensor:
        """uint8 pixels [N, S, S, 3] and tokens [N, B, T] -> language states [N, B, T, H]."""
        return self.decoder(self.encoder(pixels), tokens)


class WordPredictor:
    """The decoder as beam search sees it, for the images of one `Memory`."""

    def __init__(self, decoder: Decoder, memory: Memory) -> None:
        self.decoder = decoder
        self.memory = memory

    def start(self, beams: int) -> State:
        return self.decoder.init_state(self.memory, beams)

    def step(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        """Previous tokens [N, B] -> log-probabilities of the next [N, B, V] in float32."""
        state = self.decoder.step(tokens, state, self.memory)
        logits = self.decoder.predict(state.language_hidden)
        return logits.float().log_softmax(-1), state

    def reorder(self, state: State, beams: Tensor) -> State:
        return state.select(beams)
