"""Attention LSTM: grid features -> log-probabilities of the next word.

Two LSTM layers around an attention over the grid, as in Up-Down (Anderson et al. 2018,
arXiv:1707.07998), with multi-head scaled dot-product attention (Vaswani et al. 2017,
arXiv:1706.03762) instead of additive attention: the hypotheses of an image are the queries of one
matrix product, so they share the projected features without a copy. Input and output words
share one embedding (Press and Wolf 2017, arXiv:1608.05859).

N images, B sequences for each (beams in search, references in training), L grid cells,
C channels, H hidden units, V words.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from captioner.device import send
from captioner.lstm.vocabulary import PAD


class Memory(NamedTuple):
    """The projected grid of the images: computed once, shared by all their sequences."""

    image: Tensor  # [N, 1, H], the mean of the grid
    keys: Tensor  # [N, heads, L, H / heads]
    values: Tensor  # [N, heads, L, H / heads]


class State(NamedTuple):
    """The states of both LSTM layers for each sequence; each tensor [N, B, H]."""

    attention_hidden: Tensor
    attention_cell: Tensor
    language_hidden: Tensor
    language_cell: Tensor

    def select(self, sequences: Tensor, images: Tensor | None = None) -> "State":
        """Return the states of `sequences` [N', B'] (indices along B) of all images or `images`."""
        n, b, h = self.language_hidden.shape
        if images is None:
            images = torch.arange(n, device=sequences.device)
        rows = (images[:, None] * b + sequences).view(-1)
        shape = (*sequences.shape, h)
        return State(*(part.reshape(n * b, h)[rows].view(shape) for part in self))


class Decoder(nn.Module):
    """Two-layer attention LSTM; `init_state` and `step` serve training and search alike."""

    def __init__(
        self, channels: int, words: int, *, hidden: int = 512, heads: int = 8, dropout: float = 0.3
    ) -> None:
        super().__init__()
        if hidden % heads:
            raise ValueError(f"hidden ({hidden}) must be a multiple of heads ({heads})")
        self.channels = channels
        self.heads = heads
        self.embedding = nn.Embedding(words, hidden, padding_idx=PAD)
        self.embedding_scale = math.sqrt(hidden)
        self.project_grid = nn.Sequential(nn.Linear(channels, hidden), nn.ReLU())
        self.grid_norm = nn.LayerNorm(hidden)
        self.project_image = nn.Linear(hidden, hidden)
        self.project_memory = nn.Linear(hidden, 2 * hidden, bias=False)
        self.project_query = nn.Linear(hidden, hidden, bias=False)
        self.attention_lstm = nn.LSTMCell(2 * hidden, hidden)
        self.language_lstm = nn.LSTMCell(2 * hidden, hidden)
        self.output_bias = nn.Parameter(torch.zeros(words))
        self.dropout = nn.Dropout(dropout)
        nn.init.normal_(self.embedding.weight, std=1 / math.sqrt(hidden))

    def init_memory(self, grid: Tensor) -> Memory:
        """Project grid features [N, L, C], once for all steps and sequences.

        The grid may have more channels than the decoder reads.
        """
        cells = self.project_grid(grid[..., : self.channels])  # [N, L, H]
        cells = self.dropout(self.grid_norm(cells))
        image = self.project_image(cells.mean(1, keepdim=True))
        return arrange_memory(image, self.project_memory(cells), self.heads)

    def init_state(self, memory: Memory, sequences: int) -> State:
        """Return the zero state of B = `sequences` sequences for each image."""
        n, _, hidden = memory.image.shape
        zeros = memory.image.new_zeros(n, sequences, hidden)
        return State(zeros, zeros, zeros, zeros)

    def step(self, tokens: Tensor, state: State, memory: Memory) -> State:
        """Read the previous token of each sequence [N, B]; `predict` gives the next."""
        # The shared embedding is small for the output; here it must match the image's vector.
        words = self.embedding(tokens) * self.embedding_scale  # [N, B, H]
        words = self.dropout(words) + memory.image
        attention = torch.cat([words, state.language_hidden], dim=-1)  # [N, B, 2H]
        hidden1, cell1 = _cell(
            self.attention_lstm, attention, state.attention_hidden, state.attention_cell
        )
        context = attend(self.project_query(hidden1), memory)  # [N, B, H]
        language = torch.cat([context, hidden1], dim=-1)  # [N, B, 2H]
        hidden2, cell2 = _cell(
            self.language_lstm, language, state.language_hidden, state.language_cell
        )
        return State(hidden1, cell1, hidden2, cell2)

    def predict(self, hidden: Tensor) -> Tensor:
        """Return logits [..., V] for language states [..., H]."""
        return functional.linear(self.dropout(hidden), self.embedding.weight, self.output_bias)

    def forward(self, grid: Tensor, tokens: Tensor) -> Tensor:
        """Return language states [N, B, T, H] for a grid [N, L, C] and true tokens [N, B, T].

        The tokens may be on the CPU, so that nothing waits for a GPU. They start with BOS. A column
        of B is skipped (its states are zero) once all its sequences have ended, so sort the
        references of each image by length, shortest first.
        """
        memory = self.init_memory(grid)
        state = self.init_state(memory, tokens.shape[1])
        lengths = (tokens != PAD).sum(-1).amax(0).tolist()  # the longest of each column of B
        tokens = send(tokens, grid.device)
        hidden = []
        for t in range(tokens.shape[2]):
            ended = next((b for b, length in enumerate(lengths) if length > t), len(lengths) - 1)
            first = ended - (tokens.shape[1] - state.language_hidden.shape[1])
            state = State(*(part[:, first:] for part in state))
            state = self.step(tokens[:, ended:, t], state, memory)
            hidden.append(functional.pad(state.language_hidden, (0, 0, ended, 0)))
        return torch.stack(hidden, dim=2)


def arrange_memory(image: Tensor, keys_and_values: Tensor, heads: int) -> Memory:
    """Return the memory of images [N, 1, H] with keys and values [N, L, 2H], both of all heads."""
    n, length, both = keys_and_values.shape
    parts = keys_and_values.view(n, length, 2, heads, both // 2 // heads)
    keys, values = parts.permute(2, 0, 3, 1, 4).contiguous()  # each [N, heads, L, H / heads]
    return Memory(image, keys, values)


def attend(query: Tensor, memory: Memory) -> Tensor:
    """Return the attended grid [N, B, H] for queries [N, B, H], each the queries of all heads."""
    n, b, h = query.shape
    heads = memory.keys.shape[1]
    query = query.view(n, b, heads, -1).transpose(1, 2)
    scores = query @ memory.keys.transpose(2, 3)  # [N, heads, B, L]
    weights = torch.softmax(scores / math.sqrt(query.shape[-1]), dim=-1)
    return (weights @ memory.values).transpose(1, 2).reshape(n, b, h)


def _cell(cell: nn.LSTMCell, inputs: Tensor, hidden: Tensor, memory: Tensor) -> tuple[Tensor, ...]:
    """Apply an LSTM cell to [N, B, ...]."""
    n, b = inputs.shape[:2]
    states = cell(inputs.flatten(0, 1), (hidden.flatten(0, 1), memory.flatten(0, 1)))
    return tuple(state.view(n, b, -1) for state in states)
