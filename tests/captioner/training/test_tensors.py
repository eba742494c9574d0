"""What a training keeps on disk of its images is that of the images as they are."""

import json
from pathlib import Path

import numpy as np
import torch
from conftest import photograph

from captioner.encoder import Encoder
from captioner.training.dataset import load_split
from captioner.training.tensors import cached_features, cached_pixels


def test_an_image_that_is_replaced_is_read_again(tmp_path: Path) -> None:
    for number in range(2):
        (tmp_path / f"{number}.jpg").write_bytes(photograph(number))
    captions = tmp_path / "captions.jsonl"
    lines = (json.dumps({"image": f"{number}.jpg", "captions": ["x"]}) for number in range(2))
    captions.write_text("\n".join(lines))
    split = load_split([tmp_path], [captions], None)
    before = np.array(cached_pixels(split, 32, tmp_path / "cache"))
    assert (cached_pixels(split, 32, tmp_path / "cache") == before).all()
    (tmp_path / "1.jpg").write_bytes(photograph(2))
    after = cached_pixels(split, 32, tmp_path / "cache")
    assert (after[0] == before[0]).all() and (after[1] != before[1]).any()


def test_features_are_those_of_every_image(tmp_path: Path) -> None:
    torch.manual_seed(0)
    encoder = Encoder("squeezenet1_1")
    pixels = np.random.default_rng(0).integers(0, 256, (40, 64, 64, 3), dtype=np.uint8)
    changed = pixels.copy()
    changed[3] = 0
    cpu = torch.device("cpu")
    before = np.array(cached_features(pixels, encoder, tmp_path, cpu))
    after = cached_features(changed, encoder, tmp_path, cpu)
    assert (after[2] == before[2]).all() and (after[3] != before[3]).any()
