"""The decoder as a search runs it: the same words, with fewer and larger matrix products."""

import torch
from torch import Tensor
from torch.nn import functional

from captioner.lstm.decoder import Decoder, Memory, State


class FoldedDecoder:
    """A decoder in evaluation mode whose gates are computed in parts.

    The gates of its attention LSTM are linear in what it reads, so the part of each word is one row
    of a table, that of the image is computed once, and one product of the states remains. Each LSTM
    multiplies all its inputs by one matrix. V words, H hidden units.
    """

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        first, second = decoder.attention_lstm, decoder.language_lstm
        hidden = first.hidden_size
        of_words, of_language = torch.split(first.weight_ih, hidden, dim=1)
        words = decoder.embedding.weight * decoder.embedding_scale
        self._of_image = of_words
        biases = first.bias_ih + first.bias_hh
        self._of_words = functional.linear(words, of_words, biases)  # [V, 4H]
        self._attention = torch.cat([of_language, first.weight_hh], dim=1)  # [4H, 2H]
        self._language = torch.cat([second.weight_ih, second.weight_hh], dim=1)  # [4H, 3H]
        self._bias = second.bias_ih + second.bias_hh

    def init_memory(self, grid: Tensor) -> Memory:
        """Project grid features; `image` are gates [N, 1, 4H], unlike those of the decoder."""
        memory = self._decoder.init_memory(grid)
        return memory._replace(image=functional.linear(memory.image, self._of_image))

    def init_state(self, memory: Memory, sequences: int) -> State:
        """Return the zero state of B = `sequences` sequences for each image."""
        n, _, gates = memory.image.shape
        zeros = memory.image.new_zeros(n, sequences, gates // 4)
        return State(zeros, zeros, zeros, zeros)

    def step(self, tokens: Tensor, state: State, memory: Memory) -> State:
        """Read the previous token of each sequence [N, B]."""
        read = torch.cat([state.language_hidden, state.attention_hidden], dim=-1)
        gates = functional.linear(read, self._attention)
        gates += self._of_words[tokens]
        gates += memory.image
        hidden1, cell1 = _cell(gates, state.attention_cell)
        context = self._decoder.attend(hidden1, memory)
        read = torch.cat([context, hidden1, state.language_hidden], dim=-1)
        gates = functional.linear(read, self._language, self._bias)
        return State(hidden1, cell1, *_cell(gates, state.language_cell))

    def predict(self, hidden: Tensor) -> Tensor:
        """Return logits [..., V] for language states [..., H]."""
        return self._decoder.predict(hidden)


def _cell(gates: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """Return the hidden state and the cell of an LSTM, by gates [..., 4H] in PyTorch's order."""
    entry, forget, candidate, output = gates.chunk(4, dim=-1)
    cell = forget.sigmoid() * cell + entry.sigmoid() * candidate.tanh()
    return output.sigmoid() * cell.tanh(), cell
