"""Word presence: its gain, and its effect on a search."""

import math

import torch
from torch import Tensor

from captioner.lstm.decoder import Decoder
from captioner.lstm.model import LogitBias, WordPredictor
from captioner.lstm.presence import WordPresence
from captioner.lstm.vocabulary import BOS

WORDS = 8
CONTENT = torch.tensor([False] * 4 + [False, True, True, True])


def test_untrained_presence_has_no_gain() -> None:
    presence = WordPresence(3, WORDS)
    assert torch.equal(presence.gain(presence(torch.randn(2, 4, 3)), CONTENT), torch.zeros(2, 8))


def test_only_content_words_that_the_image_makes_likelier_gain() -> None:
    presence = WordPresence(3, WORDS)
    presence.log_prior.fill_(math.log(0.1))
    likely = torch.full((1, WORDS), 0.1)
    likely[0, 4:6] = 0.8
    gain = presence.gain(likely.log(), CONTENT)[0]
    assert gain[5] > 0 > gain[6] and gain[6] == gain[7]
    assert (gain[:5] == 0).all()
    assert math.isclose(gain[5] - gain[6], math.log(8), rel_tol=1e-5)
    assert abs((likely[0] * gain).sum()) < 1e-6


def test_without_content_words_there_is_no_gain() -> None:
    presence = WordPresence(3, WORDS)
    gain = presence.gain(presence(torch.randn(2, 4, 3)), torch.zeros(WORDS, dtype=torch.bool))
    assert (gain == 0).all()


def make_decoder() -> Decoder:
    torch.manual_seed(0)
    return Decoder(3, WORDS, hidden=16, heads=2).eval()


def test_a_search_keeps_the_bias_of_each_image_when_others_leave_the_batch() -> None:
    decoder, unsaid = make_decoder(), torch.randn(3, WORDS)
    unsaid[:, BOS] = 0
    logit_bias = LogitBias(unsaid, torch.zeros(WORDS))
    predictor = WordPredictor(decoder, torch.randn(3, 4, 3), logit_bias)
    state = predictor.reorder(predictor.start(), torch.zeros(2, 1).long(), torch.tensor([0, 2]))
    log_probs, _ = predictor.step(torch.full((2, 1), BOS), state)
    none = LogitBias(torch.zeros(2, WORDS), torch.zeros(WORDS))
    plain = WordPredictor(decoder, predictor.grid[[0, 2]], none)
    unbiased, _ = plain.step(torch.full((2, 1), BOS), plain.start())
    expected = (unbiased[:, 0] + unsaid[[0, 2]]).log_softmax(-1)
    torch.testing.assert_close(log_probs[:, 0], expected)


def test_each_hypothesis_keeps_track_of_its_words() -> None:
    decoder, unsaid = make_decoder(), torch.zeros(1, WORDS)
    unsaid[0, 5:7] = 3.0
    grid, repeated = torch.randn(1, 4, 3), torch.full((WORDS,), -2.0)
    biased = WordPredictor(decoder, grid, LogitBias(unsaid, repeated))
    plain = WordPredictor(decoder, grid, LogitBias(torch.zeros(1, WORDS), torch.zeros(WORDS)))
    words = [[BOS]], [[5, 6]], [[7, 5]]
    parents = [[0, 0]], [[1, 1]]  # the second hypothesis, which contains 6, replaces the first
    said = [[BOS, 6, 7], [BOS, 6, 5]]

    def last_step(predictor: WordPredictor) -> Tensor:
        state = predictor.start()
        for tokens, beams in zip(words[:2], parents, strict=True):
            _, state = predictor.step(torch.tensor(tokens), state)
            state = predictor.reorder(state, torch.tensor(beams), None)
        return predictor.step(torch.tensor(words[2]), state)[0][0]  # [2, WORDS]

    expected = last_step(plain)
    for b, ids in enumerate(said):
        bias = unsaid[0].clone()
        bias[ids] = -2
        torch.testing.assert_close(last_step(biased)[b], (expected[b] + bias).log_softmax(-1))
