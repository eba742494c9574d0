"""Soft targets are the teachers' averaged predictions at each word of the references."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from captioner.errors import CaptionerError
from captioner.lstm.checkpoint import load_checkpoint, save_checkpoint
from captioner.lstm.model import CaptionModel, ModelConfig
from captioner.lstm.vocabulary import PAD, SPECIAL_WORDS, Vocabulary
from captioner.training.data.dataset import Split, load_split
from captioner.training.data.tensors import References, cached_pixels
from captioner.training.distill import KEPT_WORDS, SoftTargets, cached_soft_targets
from captioner.training.losses import CrossEntropy
from tests.support.photographs import photograph

CPU = torch.device("cpu")
VOCABULARY = Vocabulary((*SPECIAL_WORDS, *(f"w{number}" for number in range(8))))
CAPTIONS = [["w0 w1 w2", "w3"], ["w4 w5"], ["w6 w7 w0 w1", "w2 w3", "w1"]]


@pytest.fixture
def split(tmp_path: Path) -> Split:
    lines = []
    for number, captions in enumerate(CAPTIONS):
        (tmp_path / f"{number}.jpg").write_bytes(photograph(number))
        lines.append(json.dumps({"image": f"{number}.jpg", "captions": captions}))
    (tmp_path / "captions.jsonl").write_text("\n".join(lines))
    return load_split([tmp_path], [tmp_path / "captions.jsonl"], None)


def write_teacher(folder: Path, seed: int, size: int, words: Vocabulary = VOCABULARY) -> str:
    torch.manual_seed(seed)
    config = ModelConfig(encoder="squeezenet1_1", image_size=size, hidden=16, heads=2)
    save_checkpoint(folder, CaptionModel(config, len(words)), words)
    return str(folder)


def test_targets_are_the_mean_of_the_teachers_predictions(split: Split, tmp_path: Path) -> None:
    teachers = [write_teacher(tmp_path / name, seed, 64) for seed, name in enumerate("ab")]
    references = References.of(split.captions, VOCABULARY, 20)
    cache = tmp_path / "cache"
    soft_targets = cached_soft_targets(teachers, split, references, VOCABULARY, cache, CPU)
    images = [2, 0]
    inputs, words = references.tokens(images)
    ids, probabilities = soft_targets.of(images, words)
    pixels = torch.from_numpy(np.array(cached_pixels(split, 64, cache)))[images]
    expected = torch.zeros(())
    for teacher in teachers:
        model = load_checkpoint(teacher).model
        with torch.no_grad():
            expected = expected + model.decoder.predict(model(pixels, inputs)).softmax(-1) / 2
    dense = torch.zeros(*words.shape, len(VOCABULARY)).scatter_add(3, ids, probabilities)
    assert ids.shape == (2, 3, 5, min(KEPT_WORDS, len(VOCABULARY)))
    torch.testing.assert_close(dense[words != PAD], expected[words != PAD], atol=0.02, rtol=0)


def test_the_error_for_a_teacher_with_another_vocabulary_names_it(
    split: Split, tmp_path: Path
) -> None:
    other = Vocabulary((*VOCABULARY.words, "more"))
    teacher = write_teacher(tmp_path / "other", 1, 64, other)
    references = References.of(split.captions, VOCABULARY, 20)
    with pytest.raises(CaptionerError, match="other has another vocabulary"):
        cached_soft_targets([teacher], split, references, VOCABULARY, tmp_path, CPU)


def test_certain_teachers_give_the_loss_of_the_references() -> None:
    references = References([[[5, 6]], [[7]]], [True, True])
    words = references.tokens([0, 1])[1]
    ids = np.zeros((2, 3, 1), np.uint16)
    ids[:, :, 0] = words[:, 0]
    certain = SoftTargets(ids, np.ones((2, 3, 1), np.float16), [0, 1, 2])
    model = CaptionModel(ModelConfig("squeezenet1_1", hidden=16, heads=2), 9).eval()
    grid = torch.randn(2, 4, 512)
    losses = [
        CrossEntropy(references, 0.0, targets, weight)(model.decoder, grid, [0, 1]).item()
        for targets, weight in ((None, 0.0), (certain, 1.0), (certain, 0.5))
    ]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    assert losses[2] == pytest.approx(losses[0], rel=1e-5)
