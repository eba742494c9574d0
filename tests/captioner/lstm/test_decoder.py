"""The attention LSTM: one step function for training and search, whatever the batch."""

import pytest
import torch
from torch import Tensor

from captioner.lstm.decoder import Decoder
from captioner.lstm.inference.folded import FoldedDecoder
from captioner.lstm.vocabulary import BOS, PAD

CHANNELS, WORDS = 12, 20


@pytest.fixture
def decoder() -> Decoder:
    torch.manual_seed(0)
    return Decoder(CHANNELS, WORDS, hidden=16, heads=4).eval()


def step_by_step(decoder: Decoder | FoldedDecoder, grid: Tensor, tokens: Tensor) -> Tensor:
    """Return the language states of one sequence [T] over a grid [L, C], computed as in search."""
    memory = decoder.init_memory(grid[None])
    state = decoder.init_state(memory, 1)
    states = []
    for token in tokens:
        state = decoder.step(token.view(1, 1), state, memory)
        states.append(state.language_hidden[0, 0])
    return torch.stack(states)


def test_teacher_forcing_agrees_with_single_steps(decoder: Decoder) -> None:
    grid = torch.randn(3, 9, CHANNELS)
    tokens = torch.randint(4, WORDS, (3, 2, 7))
    tokens[:, :, 0] = BOS
    for image, (short, long) in enumerate([(2, 7), (3, 5), (4, 6)]):
        tokens[image, 0, short:] = PAD
        tokens[image, 1, long:] = PAD
    with torch.no_grad():
        together = decoder(grid, tokens)
        for image in range(3):
            for b in range(2):
                length = int((tokens[image, b] != PAD).sum())
                alone = step_by_step(decoder, grid[image], tokens[image, b, :length])
                torch.testing.assert_close(together[image, b, :length], alone)


def test_an_image_depends_only_on_its_own_features(decoder: Decoder) -> None:
    tokens = torch.full((2, 1, 1), BOS)
    grid = torch.randn(2, 9, CHANNELS, requires_grad=True)
    decoder(grid, tokens)[0].sum().backward()
    assert grid.grad is not None
    assert grid.grad[0].abs().sum() > 0 and grid.grad[1].abs().sum() == 0


def test_the_order_of_grid_cells_does_not_matter(decoder: Decoder) -> None:
    grid, tokens = torch.randn(1, 9, CHANNELS), torch.tensor([[[BOS, 5, 6]]])
    with torch.no_grad():
        torch.testing.assert_close(decoder(grid, tokens), decoder(grid.flip(1), tokens))


def test_selected_states_follow_their_hypotheses(decoder: Decoder) -> None:
    memory = decoder.init_memory(torch.randn(2, 9, CHANNELS))
    state = decoder.step(
        torch.tensor([[4, 5, 6], [7, 8, 9]]), decoder.init_state(memory, 3), memory
    )
    selected = state.select(torch.tensor([[2, 0, 0], [1, 1, 2]]))
    for before, after in zip(state, selected, strict=True):
        assert torch.equal(after[0], before[0, [2, 0, 0]])
        assert torch.equal(after[1], before[1, [1, 1, 2]])


def test_heads_must_divide_the_hidden_units() -> None:
    with pytest.raises(ValueError, match="multiple"):
        Decoder(CHANNELS, WORDS, hidden=10, heads=4)


def test_a_folded_decoder_has_the_same_states_and_words(decoder: Decoder) -> None:
    grid = torch.randn(9, CHANNELS)
    tokens = torch.tensor([BOS, 7, 5, 12, 19])
    with torch.no_grad():
        folded = FoldedDecoder(decoder, torch.float32)
        states, same = (step_by_step(each, grid, tokens) for each in (decoder, folded))
        torch.testing.assert_close(same, states)
        torch.testing.assert_close(folded.predict(same), decoder.predict(states))


def test_a_decoder_folded_in_bfloat16_scores_words_in_float32(decoder: Decoder) -> None:
    grid, tokens = torch.randn(9, CHANNELS).bfloat16(), torch.tensor([BOS, 7, 5, 12, 19])
    with torch.no_grad():
        folded = FoldedDecoder(decoder, torch.bfloat16)
        states = step_by_step(folded, grid, tokens)
        scores = folded.predict(states)
        assert states.dtype == torch.bfloat16 and scores.dtype == torch.float32
        exact = decoder.float().predict(states.float())
        torch.testing.assert_close(scores, exact)
