"""Fitting word presence to the references of images."""

from pathlib import Path

import numpy as np
import pytest
import torch

from captioner.lstm.checkpoint import load_checkpoint, save_checkpoint
from captioner.lstm.presence import LOG_FLOOR, WordPresence
from captioner.training.data.tensors import References
from captioner.training.fit_presence import (
    fit_presence,
    fit_to_images,
    leave_out_rare_words,
    word_shares,
)

WORDS = 8


def test_word_shares_count_references_not_repetitions() -> None:
    shares = word_shares([[[5, 5, 6], [5]], [[7]]], WORDS)
    assert shares[0].tolist() == [0, 0, 0, 0, 0, 1, 0.5, 0]
    assert shares[1].tolist() == [0, 0, 0, 0, 0, 0, 0, 1]


def test_fitted_presence_predicts_the_words_of_the_references() -> None:
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


def test_of_a_cnn_that_knows_the_training_images_presence_believes_a_detector() -> None:
    random = np.random.default_rng(0)
    kinds = random.integers(0, 2, 400)
    features = random.normal(size=(400, 61))
    features[:, :60] += 20 * kinds[:, None]  # of training images, the CNN knows everything
    features[:, 60] += 3 * kinds  # the detector errs sometimes
    references = [[[4, 5 + kind]] for kind in kinds.tolist()]
    unseen = torch.from_numpy(features).float()
    unseen[:, :60] = 10  # of others, nothing
    right = []
    for apart in (0, 1):
        torch.manual_seed(0)
        presence = WordPresence(61, WORDS)
        fit_presence(presence, torch.from_numpy(features).float(), references, apart=apart)
        gap = presence(unseen.unsqueeze(1)).detach()[:, 6] - presence.log_prior[6]
        right.append(float(gap[kinds == 1].mean() - gap[kinds == 0].mean()))
    assert right[1] > 1.3 * right[0], right


def test_the_presence_of_rare_words_is_what_is_usual(
    tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("captioner.training.fit_presence.MOST_WORDS", 2)
    checkpoint = load_checkpoint(tiny_checkpoint)
    model, vocabulary = checkpoint.model, checkpoint.vocabulary
    cat, dog, man = (vocabulary.encode(word)[0] for word in ("cat", "dog", "man"))
    references = References([[[cat]], [[cat]], [[dog, man]], [[dog]]], [True] * 4)
    pixels = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), np.uint8)
    leave_out_rare_words(model, references, vocabulary)
    fit_to_images(model, pixels, references, torch.device("cpu"))
    save_checkpoint(tmp_path, model, vocabulary)
    presence = load_checkpoint(tmp_path).model.presence
    assert sorted(presence.rows.tolist()) == sorted([cat, dog])
    with torch.no_grad():
        found = presence(model.encoder(torch.from_numpy(pixels)))
    rare = [word for word in range(len(vocabulary)) if word not in (cat, dog)]
    usual = presence.log_prior[rare].clamp(min=LOG_FLOOR)
    torch.testing.assert_close(found[:, rare], usual.expand(4, -1))
    assert (found[:2, cat] > found[:2, dog]).all() and (found[2:, cat] < found[2:, dog]).all()


def test_a_fit_to_images_does_not_depend_on_the_random_state(tiny_checkpoint: Path) -> None:
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
    torch.testing.assert_close(*fits)


@pytest.mark.parametrize("scale", [1e-9, 1e-5, 1.0, 300.0])
def test_features_that_hardly_differ_between_images_give_weights_of_ordinary_size(
    scale: float,
) -> None:
    torch.manual_seed(0)
    means = scale * (1 + 1e-4 * torch.randn(40, 32))
    means[:, 0] = scale  # as of a channel that is dead, or saturated
    presence = WordPresence(32, WORDS)
    fit_presence(presence, means, [[[4, 5 + number % 2]] for number in range(40)])
    for value in presence.state_dict().values():
        assert value.half().isfinite().all()
    shares = presence(means.unsqueeze(1)).exp()
    torch.testing.assert_close(shares[:, 4], torch.ones(40), atol=0.01, rtol=0)
    torch.testing.assert_close(shares[:, 5], torch.full([40], 0.5), atol=0.1, rtol=0)
