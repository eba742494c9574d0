"""Layers in whole numbers of 8 bits, on CPUs with instructions for them (VNNI).

Like those of `onednn.py`, they are operations of PyTorch's compiler, tried once on an example. A
product of whole numbers is exact: neither the batch nor the processor changes it.
"""

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor, nn

from captioner.errors import CaptionerError
from captioner.lstm.efficientnet_lite import EfficientNetLite, InvertedResidual
from captioner.lstm.int8 import ACTIVE, LARGEST, PIXELS, Int8Weights, Scale, round_weight

LINEAR_ZERO = 128  # of what a linear layer reads: oneDNN has no fast product of two signed numbers


class Int8Linear:
    """A linear layer: `weight` [outputs, inputs] with a step for each output, `bias` [outputs].

    Each row that it reads gets a step of its own, by its greatest value, so that it does not depend
    on the rows beside it.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        numbers, self._steps = round_weight(weight)
        self._weight = torch.ops.onednn.qlinear_prepack(numbers.to(torch.int8), None)
        self._zeros = torch.zeros(len(weight), dtype=torch.int64)
        self._bias = bias
        self._rounding = torch.tensor(LINEAR_ZERO + 0.5)

    def __call__(self, x: Tensor) -> Tensor:
        """Return float32 [..., outputs] for [..., inputs]."""
        rows = x.reshape(-1, x.shape[-1])
        steps = rows.abs().amax(1, keepdim=True).div_(LARGEST).clamp_(min=1e-12)
        numbers = torch.addcdiv(self._rounding, rows, steps).to(torch.uint8)
        one = Scale(1.0, LINEAR_ZERO)
        product: Tensor = torch.ops.onednn.qlinear_pointwise(
            numbers, *one, self._weight, self._steps, self._zeros, None, 1.0, 0, torch.float32,
            "none", [], "",
        )  # fmt: skip
        product *= steps
        if self._bias is not None:
            product += self._bias
        return product.view(*x.shape[:-1], -1)


class Int8Convolution:
    """A convolution, of the shape of `layer`, of whole numbers that are `read` by their scale.

    It gives whole numbers of the scale `written`, or the values themselves.
    """

    def __init__(
        self, layer: nn.Conv2d, name: str, weights: Int8Weights, read: Scale, written: Scale | None
    ) -> None:
        self._numbers = weights.tensors[f"{name}.weight"]
        self._steps = weights.tensors[f"{name}.steps"]
        self._bias = weights.tensors[f"{name}.bias"]
        self._zeros = torch.zeros(len(self._steps), dtype=torch.int64)
        self._sizes = (layer.stride, layer.padding, layer.dilation, layer.groups)
        self._read = read
        self._written = (*written, torch.uint8) if written else (1.0, 0, torch.float32)
        self._weight: Tensor | None = None

    def __call__(self, x: Tensor, added: Tensor | None = None) -> Tensor:
        """Return uint8 or float32 [N, C', H', W'] for uint8 [N, C, H, W] in channels_last.

        What is `added`, to values, may be overwritten.
        """
        if self._weight is None:
            self._weight = torch.ops.onednn.qconv_prepack(
                self._numbers, self._steps, *self._read, *self._sizes, list(x.shape)
            )
        inputs = (x, *self._read, self._weight, self._steps, self._zeros)
        outputs = (self._bias, *self._sizes, *self._written)
        convolve = torch.ops.onednn.qconv2d_pointwise
        if added is None:
            return convolve(*inputs, *outputs, "none", [], "")
        return convolve.binary(*inputs, added, *outputs, 1.0, 0, "sum", 1.0, "none", [], "")


class Int8Block:
    """A block of an EfficientNet-Lite; it takes whole numbers, or values that it rounds."""

    def __init__(self, layers: Sequence[Int8Convolution], read: Scale, is_residual: bool) -> None:
        self._layers = layers
        self._read = read
        self._is_residual = is_residual

    def __call__(self, x: Tensor) -> Tensor:
        y = x if x.dtype == torch.uint8 else _rounded(x, self._read)
        for layer in self._layers[:-1]:
            y = layer(y)
        return self._layers[-1](y, x if self._is_residual else None)


def int8_blocks(trunk: EfficientNetLite, weights: Int8Weights) -> list[Int8Block]:
    """Return the blocks of a trunk: from pixels, uint8 [N, 3, S, S], to a grid in ACTIVE's scale.

    Raises CaptionerError if this machine cannot compute them.
    """
    require_int8()
    blocks, read = [], PIXELS
    residual = [isinstance(each, InvertedResidual) and each.residual for each in trunk.features]
    for place, block in enumerate(trunk.features):
        name = f"features.{place}"
        scale = weights.output_scale(name)
        are_values = any(residual[place : place + 2])  # where this or the next block adds
        layers = _layers(block, name, weights, read, None if are_values else scale)
        blocks.append(Int8Block(layers, read, residual[place]))
        read = scale
    return blocks


def _layers(
    block: nn.Module, name: str, weights: Int8Weights, read: Scale, written: Scale | None
) -> list[Int8Convolution]:
    """Return the convolutions of a block."""
    named = [(part, each) for part, each in block.named_modules() if isinstance(each, nn.Conv2d)]
    between = [ACTIVE] * (len(named) - 1)
    scales = zip([read, *between], [*between, written], strict=True)
    return [
        Int8Convolution(layer, f"{name}.{part}", weights, *each)
        for (part, layer), each in zip(named, scales, strict=True)
    ]


def _rounded(x: Tensor, scale: Scale) -> Tensor:
    """Return values as whole numbers, uint8."""
    numbers = torch.add(torch.tensor(scale.zero + 0.5), x, alpha=1 / scale.step)
    return numbers.clamp_(0, 255).to(torch.uint8)


def require_int8() -> None:
    """Raise CaptionerError unless whole numbers are multiplied here, and exactly."""
    if not _is_exact():
        raise CaptionerError(
            "whole numbers of 8 bits cannot be multiplied exactly here, which takes a CPU with VNNI"
            " and PyTorch with oneDNN: choose another precision than int8"
        )


@cache
@torch.inference_mode()
def _is_exact() -> bool:
    """Return whether the greatest numbers, which processors without VNNI cut off, are right."""
    tensors = {
        "layer.weight": torch.full((16, 32, 1, 1), LARGEST, dtype=torch.int8),
        "layer.steps": torch.ones(16),
        "layer.bias": torch.ones(16),
    }
    layer, weights = nn.Conv2d(32, 16, 1), Int8Weights(tensors, source="")
    one, written = Scale(1.0, 0), Scale(32 * 255.0, 1)
    values = torch.full((1, 32, 4, 4), 255.0).to(memory_format=torch.channels_last)
    try:
        x = _rounded(values, one)
        numbers = Int8Convolution(layer, "layer", weights, one, written)(x)
        added = Int8Convolution(layer, "layer", weights, one, None)(x, values[:, :16] / 255)
        product = Int8Linear(torch.ones(16, 64))(torch.ones(3, 64))
    except (AttributeError, RuntimeError, TypeError):
        return False
    right = (numbers == LARGEST + 1).all() & (added == 32 * 255 * LARGEST + 2).all()
    return bool(right) and product.allclose(torch.tensor(64.0))
