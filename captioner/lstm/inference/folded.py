"""The decoder as a search runs it: the same words, with fewer and larger matrix products."""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from captioner.lstm.decoder import Decoder, Memory, State, arrange_memory, attend
from captioner.lstm.inference.int8 import Int8Linear, require_int8
from captioner.lstm.inference.onednn import PackedLinear


class FoldedDecoder:
    """A decoder in evaluation mode whose gates are computed in parts.

    It takes the decoder over, and converts it to numbers of type `dtype`.

    The gates of its attention LSTM are linear in what it reads, so the part of each word is one row
    of a table, that of the image is computed once, and one product of the states remains. Each LSTM
    multiplies all its inputs by one matrix. V words, H hidden units. With `int8`, the products are
    of whole numbers.
    """

    def __init__(self, decoder: Decoder, dtype: torch.dtype, *, int8: bool = False) -> None:
        decoder = decoder.to(dtype)
        if int8:
            require_int8()
        linear = Int8Linear if int8 else PackedLinear
        self._heads, self._norm, self._channels = decoder.heads, decoder.grid_norm, decoder.channels
        grid = cast(nn.Linear, decoder.project_grid[0])
        self._grid = linear(grid.weight, grid.bias)
        self._memory = linear(decoder.project_memory.weight)
        self._image = decoder.project_image
        first, second = decoder.attention_lstm, decoder.language_lstm
        of_words, of_language = torch.split(first.weight_ih, first.hidden_size, dim=1)
        words = decoder.embedding.weight * decoder.embedding_scale
        biases = first.bias_ih + first.bias_hh
        self._of_words = functional.linear(words, of_words, biases)  # [V, 4H]
        self._of_image = linear(of_words.contiguous())
        self._attention = linear(torch.cat([of_language, first.weight_hh], dim=1))
        self._query = linear(decoder.project_query.weight)
        self._language = linear(
            torch.cat([second.weight_ih, second.weight_hh], dim=1), second.bias_ih + second.bias_hh
        )
        # A logit of 10 in bfloat16 is off by up to 0.03: another word may then seem the best.
        self._logits = torch.float32 if dtype == torch.bfloat16 else dtype
        weights = decoder.embedding.weight, decoder.output_bias
        self._output = linear(*(each.to(self._logits) for each in weights))

    def init_memory(self, grid: Tensor) -> Memory:
        """Project grid features; `image` are gates [N, 1, 4H], unlike those of the decoder."""
        cells = self._norm(self._grid(grid[..., : self._channels]).relu_())  # [N, L, H]
        gates = self._of_image(self._image(cells.mean(1, keepdim=True)))
        return arrange_memory(gates, self._memory(cells), self._heads)

    def init_state(self, memory: Memory, sequences: int) -> State:
        """Return the zero state of B = `sequences` sequences for each image."""
        n, _, gates = memory.image.shape
        zeros = memory.image.new_zeros(n, sequences, gates // 4)
        return State(zeros, zeros, zeros, zeros)

    def step(self, tokens: Tensor, state: State, memory: Memory) -> State:
        """Read the previous token of each sequence [N, B]."""
        read = torch.cat([state.language_hidden, state.attention_hidden], dim=-1)
        gates = self._attention(read)
        gates += self._of_words[tokens]
        gates += memory.image
        hidden1, cell1 = _cell(gates, state.attention_cell)
        context = attend(self._query(hidden1), memory)
        read = torch.cat([context, hidden1, state.language_hidden], dim=-1)
        gates = self._language(read)
        return State(hidden1, cell1, *_cell(gates, state.language_cell))

    def predict(self, hidden: Tensor) -> Tensor:
        """Return logits [..., V] for language states [..., H]."""
        return self._output(hidden.to(self._logits))


def _cell(gates: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """Return the hidden state and the cell of an LSTM, by gates [..., 4H] in PyTorch's order."""
    entry, forget, candidate, output = gates.chunk(4, dim=-1)
    cell = forget.sigmoid() * cell + entry.sigmoid() * candidate.tanh()
    return output.sigmoid() * cell.tanh(), cell
