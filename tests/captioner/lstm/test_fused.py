"""The fused encoder gives the grid of its encoder, for any number of images."""

import io
from copy import deepcopy

import numpy as np
import pytest
import torch
from PIL import Image

from captioner.lstm.checkpoint import load_checkpoint
from captioner.lstm.encoder import Encoder
from captioner.lstm.inference.fused import FusedEncoder, make_products
from tests.support.photographs import photograph


@pytest.mark.parametrize(
    ("name", "detector", "detector_size"),
    [
        ("efficientnet_lite0", None, None),
        ("efficientnet_lite0", "yolox_nano", None),
        ("efficientnet_lite0", "yolox_nano", 32),
        ("resnet18", "yolox_nano", 96),
    ],
)
@torch.inference_mode()
def test_the_grid_is_that_of_the_encoder(
    name: str, detector: str | None, detector_size: int | None
) -> None:
    torch.manual_seed(0)
    encoder = Encoder(name, detector=detector, detector_size=detector_size).eval()
    pixels = torch.randint(0, 256, (19, 64, 64, 3), dtype=torch.uint8)
    expected = encoder(pixels)
    fused = FusedEncoder(encoder, torch.float32)
    for images in (19, 1, 8):
        torch.testing.assert_close(fused(pixels[:images]), expected[:images])


@torch.inference_mode()
def test_convolutions_of_one_pixel_are_matrix_products() -> None:
    torch.manual_seed(0)
    encoder = Encoder("efficientnet_lite0", detector="yolox_nano").eval()
    pixels = torch.randint(0, 256, (3, 64, 64, 3), dtype=torch.uint8)
    expected = encoder(pixels)
    make_products(encoder)
    kinds = [type(layer) for layer in encoder.modules() if isinstance(layer, torch.nn.Conv2d)]
    assert 0 < kinds.count(torch.nn.Conv2d) < len(kinds) / 2
    torch.testing.assert_close(encoder(pixels), expected)


@torch.inference_mode()
def test_in_bfloat16_the_grid_is_closer_to_the_truth_than_that_of_the_encoder() -> None:
    encoder = load_checkpoint("flickr8k").model.encoder
    pictures = [Image.open(io.BytesIO(photograph(seed))).resize((256, 256)) for seed in range(4)]
    pixels = torch.from_numpy(np.stack([np.asarray(picture) for picture in pictures]))
    true, fused = encoder(pixels), FusedEncoder(deepcopy(encoder), torch.bfloat16)(pixels)
    assert encoder.detector is not None
    for network in (encoder.trunk, encoder.detector):
        network.bfloat16()
    usual = encoder(pixels)
    assert fused.dtype == usual.dtype == torch.bfloat16
    assert 0 < (fused - true).norm() < 0.8 * (usual - true).norm()
