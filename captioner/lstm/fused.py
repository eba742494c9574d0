"""The encoder as captioning runs it: the same grid, with fewer passes over the activations."""

from typing import cast

import torch
from torch import Tensor, nn

from captioner.lstm.efficientnet_lite import EfficientNetLite, InvertedResidual
from captioner.lstm.encoder import Encoder
from captioner.lstm.onednn import PackedConvolution

# How many images go through a CNN at once on a CPU, so that their activations stay in the cache.
TILE = 16
WIDE_BLOCKS = 6  # the first ones of an EfficientNet-Lite, down to an eighth of the image's side
WIDE_TILE = 2
DEEP_TILE = 8  # through its other blocks, whose weights are larger

# The first blocks of an EfficientNet-Lite look for small differences between neighbours, which
# bfloat16 loses: nearly half of the error of the grid would come from them.
EXACT_BLOCKS = 2


class FusedEncoder:
    """An encoder in evaluation mode, which it takes over and converts to numbers of type `dtype`.

    On a CPU, the convolutions of an EfficientNet-Lite take in what follows them, an activation or
    an addition, and few images at once pass its first blocks, whose activations are large.
    """

    def __init__(self, encoder: Encoder, dtype: torch.dtype) -> None:
        self._encoder = encoder
        self._blocks: list[_FusedBlock] = []
        trunk = encoder.trunk
        if isinstance(trunk, EfficientNetLite) and encoder.mean.device.type == "cpu":
            exact = EXACT_BLOCKS if dtype == torch.bfloat16 else 0
            trunk.features[exact:].to(dtype)
            self._blocks = [_FusedBlock(block) for block in trunk.features]
        else:
            trunk.to(dtype)

    def __call__(self, pixels: Tensor) -> Tensor:
        """Encode uint8 RGB pixels [N, S, S, 3] to grid features [N, L, C]."""
        if pixels.device.type != "cpu":
            return self._encoder(pixels)
        if not self._blocks:
            return torch.cat([self._encoder(tile) for tile in torch.split(pixels, TILE)])
        wide, deep = self._blocks[:WIDE_BLOCKS], self._blocks[WIDE_BLOCKS:]
        tiles = (self._encoder.normalize(tile) for tile in torch.split(pixels, WIDE_TILE))
        halfway = torch.cat([_run(wide, tile) for tile in tiles])
        grid = torch.cat([_run(deep, tile) for tile in torch.split(halfway, DEEP_TILE)])
        return grid.flatten(2).transpose(1, 2)


class _FusedBlock:
    """A block of an EfficientNet-Lite."""

    def __init__(self, block: nn.Module) -> None:
        self._dtype = next(block.parameters()).dtype
        layers = block.layers if isinstance(block, InvertedResidual) else [block]
        self._layers = [_fused(layer) for layer in layers]
        self._residual = isinstance(block, InvertedResidual) and block.residual

    def __call__(self, x: Tensor) -> Tensor:
        y = x = x.to(self._dtype)
        for layer in self._layers[:-1]:
            y = layer(y)
        return self._layers[-1](y, added=x if self._residual else None)


def _fused(layer: nn.Module) -> PackedConvolution:
    """Return a convolution, or a convolution and the ReLU6 after it, as one."""
    if isinstance(layer, nn.Sequential):
        return PackedConvolution(cast(nn.Conv2d, layer[0]), relu6=True)
    return PackedConvolution(cast(nn.Conv2d, layer))


def _run(blocks: list[_FusedBlock], x: Tensor) -> Tensor:
    for block in blocks:
        x = block(x)
    return x
