"""The encoder as captioning runs it: the same grid, with fewer passes over the activations."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from captioner.lstm.efficientnet_lite import EfficientNetLite, InvertedResidual
from captioner.lstm.encoder import Encoder
from captioner.lstm.inference.int8 import Int8Block, int8_blocks
from captioner.lstm.inference.onednn import PackedConvolution
from captioner.lstm.int8 import ACTIVE, Int8Weights
from captioner.lstm.yolox import EXACT, YoloxNano

# How many images go through a CNN at once on a CPU, so that their activations stay in the cache.
TILE = 16
WIDE_BLOCKS = 6  # the first ones of an EfficientNet-Lite, down to an eighth of the image's side
WIDE_TILE = 2
DEEP_TILE = 8  # through its other blocks, whose weights are larger
DETECTOR_TILE = 16

# The first blocks of an EfficientNet-Lite look for small differences between neighbours, which
# bfloat16 loses: nearly half of the error of the grid would come from them.
EXACT_BLOCKS = 2


class FusedEncoder:
    """An encoder in evaluation mode, which it takes over and converts to numbers of type `dtype`.

    With `int8`, its EfficientNet-Lite computes in whole numbers; its detector does not.

    On a CPU, the convolutions of an EfficientNet-Lite and of the detector take in what follows
    them, an activation or an addition, and few images at once pass the first blocks, whose
    activations are large. On a GPU, those of one pixel are matrix products.
    """

    def __init__(
        self, encoder: Encoder, dtype: torch.dtype, int8: Int8Weights | None = None
    ) -> None:
        self._encoder = encoder
        self._int8 = int8 is not None
        self._blocks: list[_FusedBlock] | list[Int8Block] = []
        trunk, on_cpu = encoder.trunk, encoder.mean.device.type == "cpu"
        if int8 is not None:
            self._blocks = int8_blocks(cast(EfficientNetLite, trunk), int8)
        elif isinstance(trunk, EfficientNetLite) and on_cpu:
            exact = EXACT_BLOCKS if dtype == torch.bfloat16 else 0
            trunk.features[exact:].to(dtype)
            self._blocks = [_FusedBlock(block) for block in trunk.features]
        else:
            trunk.to(dtype)
        if encoder.detector is not None:
            _convert(encoder.detector, dtype)
            if on_cpu:
                _fuse(encoder.detector)
        if not on_cpu:
            make_products(encoder)

    def __call__(self, pixels: Tensor) -> Tensor:
        """Encode uint8 RGB pixels [N, S, S, 3] to grid features [N, L, C]."""
        if pixels.device.type != "cpu":
            return _exactly(self._encoder, pixels)
        if not self._blocks:
            return _in_tiles(self._encoder, pixels, TILE)
        wide, deep = self._blocks[:WIDE_BLOCKS], self._blocks[WIDE_BLOCKS:]
        halfway = _in_tiles(lambda tile: _run(wide, self._input(tile)), pixels, WIDE_TILE)
        grid = _in_tiles(lambda tile: _run(deep, tile), halfway, DEEP_TILE)
        if self._int8:
            grid = grid.float().mul_(ACTIVE.step)
        if self._encoder.detector is not None:
            things = partial(self._encoder.things, cells=grid.shape[2])
            grid = torch.cat([grid, _in_tiles(things, pixels, DETECTOR_TILE)], 1)
        return grid.flatten(2).transpose(1, 2)

    def _input(self, pixels: Tensor) -> Tensor:
        """Return what the first block takes."""
        return pixels.permute(0, 3, 1, 2) if self._int8 else self._encoder.normalize(pixels)


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


class _PixelConvolution(nn.Conv2d):
    """A convolution of one pixel as a matrix product, which adds the bias as it goes.

    After a convolution of cuDNN, PyTorch adds the bias in a kernel that takes as long again.
    """

    def forward(self, x: Tensor) -> Tensor:
        bias = self.bias
        assert bias is not None
        n, _, h, w = x.shape
        rows = x.permute(0, 2, 3, 1).flatten(0, 2)  # of images in channels_last, a view
        product = torch.addmm(bias, rows, self.weight.flatten(1).t())
        return product.view(n, h, w, -1).permute(0, 3, 1, 2)


class _FusedConvolution(nn.Module):
    """A packed convolution in the place of a convolution, or of it and its activation."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer  # whose parameters tell the type of its numbers
        self._packed = _fused(layer)

    def forward(self, x: Tensor) -> Tensor:
        return self._packed(x)


def _convert(detector: YoloxNano, dtype: torch.dtype) -> None:
    """Convert a detector, except what would suffer, to numbers of type `dtype`."""
    for name, layer in detector.named_children():
        if dtype != torch.bfloat16 or name not in EXACT:
            layer.to(dtype)


def _fuse(network: nn.Module) -> None:
    """Replace each convolution, and the activation after it, by one layer, in place."""
    for name, child in list(network.named_children()):
        first = child[0] if isinstance(child, nn.Sequential) else child
        if isinstance(first, nn.Conv2d):
            setattr(network, name, _FusedConvolution(child))
        else:
            _fuse(child)


def make_products(network: nn.Module) -> None:
    """Make matrix products of convolutions of one pixel, in place."""
    for layer in network.modules():
        if type(layer) is nn.Conv2d and _is_of_one_pixel(layer):
            layer.__class__ = _PixelConvolution


def _is_of_one_pixel(layer: nn.Conv2d) -> bool:
    plain = layer.stride == (1, 1) and layer.padding == (0, 0) and layer.groups == 1
    return layer.kernel_size == (1, 1) and plain and layer.bias is not None


def _fused(layer: nn.Module) -> PackedConvolution:
    """Return a convolution, or a convolution and the activation after it, as one."""
    if isinstance(layer, nn.Sequential):
        return PackedConvolution(cast(nn.Conv2d, layer[0]), layer[1])
    return PackedConvolution(cast(nn.Conv2d, layer))


def _exactly(encoder: Encoder, pixels: Tensor) -> Tensor:
    """Encode on a GPU, whose convolutions in float32 would otherwise round their inputs to TF32."""
    cudnn = torch.backends.cudnn
    with cudnn.flags(
        enabled=cudnn.enabled,
        benchmark=cudnn.benchmark,
        deterministic=cudnn.deterministic,
        allow_tf32=False,
    ):
        return encoder(pixels)


def _in_tiles(encode: Callable[[Tensor], Tensor], images: Tensor, size: int) -> Tensor:
    return torch.cat([encode(tile) for tile in torch.split(images, size)])


def _run(blocks: Sequence[Callable[[Tensor], Tensor]], x: Tensor) -> Tensor:
    for block in blocks:
        x = block(x)
    return x
