"""Word presence: which words people would use of an image."""

import math
from pathlib import Path

import numpy as np
import torch

from captioner.checkpoint import load_checkpoint
from captioner.decoder import Decoder
from captioner.model import LogitBias, WordPredictor
from captioner.presence import WordPresence
from captioner.training.fit_presence import fit_presence, fit_to_images, word_shares
from captioner.training.tensors import References
from captioner.vocabulary import BOS

WORDS = 8
CONTENT = torch.tensor([False] * 4 + [False, True, True, True])


def test_untrained_it_favours_no_word() -> None:
    presence = WordPresence(3, WORDS)
    assert torch.equal(presence.gain(presence(torch.randn(2, 4, 3)), CONTENT), torch.zeros(2, 8))


def test_gain_favours_what_the_image_makes_likelier_and_content_words_only() -> None:
    presence = WordPresence(3, WORDS)
    presence.log_prior.fill_(math.log(0.1))
    likely = torch.full((1, WORDS), 0.1)
    likely[0, 4:6] = 0.8
    gain = presence.gain(likely.log(), CONTENT)[0]
    assert gain[5] > 0 > gain[6] and gain[6] == gain[7]
    assert (gain[:5] == 0).all()
    assert math.isclose(gain[5] - gain[6], math.log(8), rel_tol=1e-5)
    assert abs((likely[0] * gain).sum()) < 1e-6


def test_without_content_words_nothing_is_favoured() -> None:
    presence = WordPresence(3, WORDS)
    gain = presence.gain(presence(torch.randn(2, 4, 3)), torch.zeros(WORDS, dtype=torch.bool))
    assert (gain == 0).all()


def test_word_shares_count_references_and_not_repetitions() -> None:
    shares = word_shares([[[5, 5, 6], [5]], [[7]]], WORDS)
    assert shares[0].tolist() == [0, 0, 0, 0, 0, 1, 0.5, 0]
    assert shares[1].tolist() == [0, 0, 0, 0, 0, 0, 0, 1]


def test_fitted_it_tells_images_by_what_people_say_of_them() -> None:
    random = np.random.default_rng(0)
    kinds = random.integers(0, 2, 400)
    features = random.normal(size=(400, 4, 6)) * 0.5 + 3
    features[:, :, 0] += kinds[:, None]
    references = [[[4, 5 + kind]] for kind in kinds.tolist()]
    torch.manual_seed(0)
    presence = WordPresence(6, WORDS)
    grids = torch.from_numpy(features).float()
    fit_presence(presence, grids.mean(1), references)
    shares = presence(grids).exp()
    assert ((shares[:, 6] > shares[:, 5]).numpy() == (kinds == 1)).mean() > 0.9
    assert (shares[:, 4] > 0.95).all() and (shares[:, 7] < 0.05).all()
    torch.testing.assert_close(presence.log_prior[5:7].exp().sum(), torch.tensor(1.0))


def test_a_fit_to_images_is_the_same_whatever_came_before(tiny_checkpoint: Path) -> None:
    model = load_checkpoint(tiny_checkpoint).model
    pixels = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), np.uint8)
    references = References([[[4]], [[5]], [[4]], [[5]]], [True, True, False, False])
    fits = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        fit_to_images(model, pixels, references, torch.device("cpu"))
        assert torch.equal(torch.get_rng_state(), before)
        fits.append(model.presence.linear.weight.clone())
    assert torch.equal(*fits)


def make_decoder() -> Decoder:
    torch.manual_seed(0)
    return Decoder(3, WORDS, hidden=16, heads=2).eval()


def test_a_search_sees_the_favour_of_each_image_when_others_leave_the_batch() -> None:
    decoder, unsaid = make_decoder(), torch.randn(3, WORDS)
    unsaid[:, BOS] = 0
    logit_bias = LogitBias(unsaid, torch.zeros(WORDS))
    predictor = WordPredictor(decoder, torch.randn(3, 4, 3), logit_bias)
    recall = predictor.reorder(predictor.start(), torch.zeros(2, 1).long(), torch.tensor([0, 2]))
    log_probs, _ = predictor.step(torch.full((2, 1), BOS), recall)
    none = LogitBias(torch.zeros(2, WORDS), torch.zeros(WORDS))
    plain = WordPredictor(decoder, predictor.grid[[0, 2]], none)
    unfavoured, _ = plain.step(torch.full((2, 1), BOS), plain.start())
    expected = (unfavoured[:, 0] + unsaid[[0, 2]]).log_softmax(-1)
    torch.testing.assert_close(log_probs[:, 0], expected)


def test_each_hypothesis_remembers_what_it_has_said() -> None:
    decoder, unsaid = make_decoder(), torch.zeros(1, WORDS)
    unsaid[0, 5:7] = 3.0
    predictor = WordPredictor(
        decoder, torch.randn(1, 4, 3), LogitBias(unsaid, torch.full((WORDS,), -2.0))
    )
    _, recall = predictor.step(torch.full((1, 1), BOS), predictor.start())
    recall = predictor.reorder(recall, torch.zeros(1, 2).long(), None)
    _, recall = predictor.step(torch.tensor([[5, 6]]), recall)
    assert recall.unsaid[0, :, 5].tolist() == [-2, 3]
    assert recall.unsaid[0, :, 6].tolist() == [3, -2]
    swapped = predictor.reorder(recall, torch.tensor([[1, 1]]), None)
    assert swapped.unsaid[0, :, 5].tolist() == [3, 3]
