"""The fused encoder gives the grid of its encoder, for any number of images."""

import pytest
import torch

from captioner.lstm.encoder import Encoder
from captioner.lstm.fused import FusedEncoder


@pytest.mark.parametrize("name", ["efficientnet_lite0", "resnet18"])
@torch.inference_mode()
def test_the_grid_is_that_of_the_encoder(name: str) -> None:
    torch.manual_seed(0)
    encoder = Encoder(name).eval()
    pixels = torch.randint(0, 256, (19, 64, 64, 3), dtype=torch.uint8)
    fused, expected = FusedEncoder(encoder), encoder(pixels)
    for images in (19, 1, 8):
        torch.testing.assert_close(fused(pixels[:images]), expected[:images])


@torch.inference_mode()
def test_in_bfloat16_it_is_as_close_to_the_truth_as_the_encoder() -> None:
    torch.manual_seed(0)
    encoder = Encoder("efficientnet_lite0").eval()
    pixels = torch.randint(0, 256, (5, 64, 64, 3), dtype=torch.uint8)
    true = encoder(pixels)
    encoder.trunk.bfloat16()
    usual, fused = ((each(pixels) - true).norm() for each in (encoder, FusedEncoder(encoder)))
    assert fused <= 1.2 * usual
