"""The usual script around a CNN with an LSTM, as most repositories of captioning models have it.

It has the weights and modules of a model of this package, in float32. Pillow reads the images, and
the beam search is a loop in Python, over the steps and over the hypotheses of one image.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from captioner.lstm.checkpoint import load_checkpoint
from captioner.lstm.decoder import Memory, State
from captioner.lstm.vocabulary import BOS, EOS, sentence
from captioner.search_options import SearchOptions
from tests.support.speed.steps import by_pillow

BATCH = 32
BEAMS, MAX_LENGTH = SearchOptions.beam_size, SearchOptions.max_length


class Hypothesis(NamedTuple):
    """The beginning of a caption, with its log-probability."""

    tokens: tuple[int, ...]
    log_prob: float
    state: State


class UsualScript:
    """A model that captions images one at a time, or after a CNN over batches of them."""

    def __init__(self, checkpoint: str, device: torch.device) -> None:
        loaded = load_checkpoint(checkpoint)
        self.model, self.words = loaded.model.to(device), loaded.vocabulary
        self.device = device

    @torch.no_grad()
    def one_at_a_time(self, paths: Sequence[Path]) -> list[str]:
        """Return a caption for each image."""
        return [self._caption(self._encoded([path])) for path in paths]

    @torch.no_grad()
    def in_batches(self, paths: Sequence[Path]) -> list[str]:
        """Return a caption for each image; only the search goes image by image."""
        batches = (paths[first : first + BATCH] for first in range(0, len(paths), BATCH))
        grids = (grid for batch in batches for grid in self._encoded(batch))
        return [self._caption(grid[None]) for grid in grids]

    def _encoded(self, paths: Sequence[Path]) -> Tensor:
        """Return grid features [N, L, C]."""
        side = self.model.config.image_size
        pictures = [by_pillow(path.read_bytes(), side) for path in paths]
        pixels = torch.from_numpy(np.stack([np.asarray(picture) for picture in pictures]))
        return self.model.encoder(pixels.to(self.device))

    def _caption(self, grid: Tensor) -> str:
        """Search the caption of one image with grid features [1, L, C]."""
        memory = self.model.decoder.init_memory(grid)
        live = [Hypothesis((BOS,), 0.0, self.model.decoder.init_state(memory, sequences=1))]
        finished: list[Hypothesis] = []
        for _ in range(MAX_LENGTH):
            grown = [more for each in live for more in self._continued(each, memory)]
            best = sorted(grown, key=lambda each: -each.log_prob)[: BEAMS - len(finished)]
            finished += [each for each in best if each.tokens[-1] == EOS]
            live = [each for each in best if each.tokens[-1] != EOS]
            if not live:
                break
        chosen = max(finished or live, key=lambda each: each.log_prob / len(each.tokens))
        return sentence(self.words.decode(chosen.tokens))

    def _continued(self, each: Hypothesis, memory: Memory) -> Iterator[Hypothesis]:
        """Yield the likeliest hypotheses with one more word."""
        last = torch.tensor([[each.tokens[-1]]], device=self.device)
        state = self.model.decoder.step(last, each.state, memory)
        log_probs = self.model.decoder.predict(state.language_hidden).log_softmax(-1)  # [1, 1, V]
        best = log_probs[0, 0].topk(BEAMS)
        for word, log_prob in zip(best.indices.tolist(), best.values.tolist(), strict=True):
            yield Hypothesis((*each.tokens, word), each.log_prob + log_prob, state)
