"""Cached pixels and features follow the images; references become inputs and targets."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from captioner.lstm.encoder import Encoder
from captioner.lstm.vocabulary import BOS, EOS, PAD, Vocabulary
from captioner.training.data.dataset import Split, load_split
from captioner.training.data.tensors import References, augment, cached_features, cached_pixels
from tests.support.photographs import photograph


@pytest.fixture
def split(tmp_path: Path) -> Split:
    for number in range(2):
        (tmp_path / f"{number}.jpg").write_bytes(photograph(number))
    captions = tmp_path / "captions.jsonl"
    lines = (json.dumps({"image": f"{number}.jpg", "captions": ["x"]}) for number in range(2))
    captions.write_text("\n".join(lines))
    return load_split([tmp_path], [captions], None)


def test_a_replaced_image_is_read_again(split: Split, tmp_path: Path) -> None:
    before = np.array(cached_pixels(split, 32, tmp_path / "cache"))
    assert (cached_pixels(split, 32, tmp_path / "cache") == before).all()
    (tmp_path / "1.jpg").write_bytes(photograph(2))
    after = cached_pixels(split, 32, tmp_path / "cache")
    assert (after[0] == before[0]).all() and (after[1] != before[1]).any()


def test_pixels_of_another_version_of_the_pipeline_are_decoded_again(
    split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = np.array(cached_pixels(split, 32, tmp_path / "cache"))
    (former,) = (tmp_path / "cache").iterdir()
    np.save(former, np.zeros_like(expected))
    monkeypatch.setattr("captioner.training.data.tensors.PIPELINE_VERSION", 99)
    assert (cached_pixels(split, 32, tmp_path / "cache") == expected).all()


def test_features_change_with_the_pixels_of_any_image(tmp_path: Path) -> None:
    torch.manual_seed(0)
    encoder = Encoder("squeezenet1_1")
    pixels = np.random.default_rng(0).integers(0, 256, (40, 64, 64, 3), dtype=np.uint8)
    changed = pixels.copy()
    changed[3] = 0
    cpu = torch.device("cpu")
    before = np.array(cached_features(pixels, encoder, tmp_path, cpu))
    after = cached_features(changed, encoder, tmp_path, cpu)
    np.testing.assert_allclose(after[2], before[2], rtol=0.02, atol=0.02)
    assert np.abs(after[3].astype(float) - before[3]).max() > 0.1


@pytest.mark.parametrize("changed", [{"detector_size": 32}, {"mean": (0.0, 0.0, 0.0)}])
def test_features_of_another_preprocessing_are_computed_again(
    tmp_path: Path, changed: dict[str, Any]
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    settings = {"detector": "yolox_nano", "detector_size": 64}
    features = []
    for each in (settings, settings | changed):
        torch.manual_seed(0)  # the same weights
        encoder = Encoder("efficientnet_lite0", **each)
        features.append(np.array(cached_features(pixels, encoder, tmp_path, torch.device("cpu"))))
    assert (features[0] != features[1]).any()


def test_references_become_inputs_and_targets() -> None:
    vocabulary = Vocabulary.build(["a dog runs fast"], min_count=1)
    references = References.of([["a dog runs", "a dog"], ["a dog runs fast"]], vocabulary, 3)
    inputs, targets = references.tokens([1, 0])
    a, dog, runs = vocabulary.encode("a dog runs")
    assert inputs.tolist() == [
        [[PAD, PAD, PAD, PAD], [BOS, a, dog, runs]],
        [[BOS, a, dog, PAD], [BOS, a, dog, runs]],
    ]
    assert targets.tolist() == [
        [[PAD, PAD, PAD, PAD], [a, dog, runs, EOS]],
        [[a, dog, EOS, PAD], [a, dog, runs, EOS]],
    ]


def test_images_whose_captions_mention_sides_are_not_mirrored() -> None:
    captions = [["a dog on the left"], ["a dog"]]
    references = References.of(captions, Vocabulary.build([], 1), 20)
    assert references.mirrorable == [False, True]
    torch.manual_seed(0)
    ramp = torch.linspace(0, 255, 32).to(torch.uint8).expand(64, 3, 32, 32)
    varied = augment(ramp.permute(0, 2, 3, 1), [False] * 32 + [True] * 32)
    falls = (varied[:, 0, 0, 0].int() > varied[:, 0, -1, 0].int()).tolist()
    assert not any(falls[:32]) and 8 < sum(falls[32:]) < 24


@pytest.mark.parametrize(
    ("level", "darkest", "brightest"), [(0, 0, 0), (100, 80, 120), (250, 200, 255)]
)
def test_augmented_images_are_up_to_a_fifth_brighter_or_darker(
    level: int, darkest: int, brightest: int
) -> None:
    torch.manual_seed(0)
    varied = augment(torch.full((64, 16, 16, 3), level, dtype=torch.uint8), [True] * 64).int()
    assert (varied == varied[:, :1, :1, :1]).all()  # grey and even, as before
    assert varied.min() in range(darkest, darkest + level // 20 + 1)
    assert varied.max() in range(brightest - level // 20, brightest + 1)
