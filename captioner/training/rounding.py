"""Rounding that can be learned through: values as whole numbers have them, gradients as if exact.

The straight-through estimator of Bengio et al. 2013 (arXiv:1308.3432), as Jacob et al. 2017
(arXiv:1712.05877) use it for whole numbers of 8 bits.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from captioner.lstm.efficientnet_lite import EfficientNetLite, InvertedResidual
from captioner.lstm.int8 import ACTIVE, BLOCK_ZERO, LARGEST, Scale, round_weight


def rounded_features(trunk: EfficientNetLite, images: Tensor, scales: dict[str, Scale]) -> Tensor:
    """Return features [N, C, S / 32, S / 32] of normalised images, as whole numbers give them.

    The `scales` are those of the outputs of inverted residual blocks, by their names.
    """
    x, scale = images, None
    for name, block in trunk.features.named_children():
        x = rounded_block(x if scale is None else _round(x, scale), block, x)
        scale = scales.get(f"features.{name}")
    return x


def rounded_block(x: Tensor, block: nn.Module, added: Tensor) -> Tensor:
    """Return the output of a block for rounded values `x`, and for what it adds, if it does."""
    if not isinstance(block, InvertedResidual):
        return _active(x, block)
    for layer in block.layers[:-1]:
        x = _active(x, layer)
    x = _convolve(x, block.layers[-1])
    return x + added if block.residual else x


def best_scale(values: Tensor) -> Scale:
    """Return the scale by which values are rounded with the least squared error."""
    greatest = values.abs().max().clamp(min=1e-6) / LARGEST
    scales = [Scale((share * greatest).item(), BLOCK_ZERO) for share in np.linspace(0.3, 1, 29)]
    return min(scales, key=lambda scale: (_round(values, scale) - values).pow(2).mean().item())


class _Rounded(torch.autograd.Function):
    """Values rounded to bytes of a scale; the gradient is zero beyond the greatest and least."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Scale) -> Tensor:
        numbers = (x / scale.step).round_()
        inside = numbers.clamp(-scale.zero, 255 - scale.zero)
        ctx.save_for_backward(inside == numbers)
        return inside.mul_(scale.step)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (inside,) = ctx.saved_tensors
        return gradient * inside, None


class _RoundedWeight(torch.autograd.Function):
    """Weights rounded to whole numbers, with a step for each output."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor) -> Tensor:
        numbers, steps = round_weight(weight)
        return numbers.mul_(steps.view(-1, 1, 1, 1))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient


def _round(x: Tensor, scale: Scale) -> Tensor:
    return _Rounded.apply(x, scale)


def _convolve(x: Tensor, layer: nn.Module) -> Tensor:
    assert isinstance(layer, nn.Conv2d)
    weight = _RoundedWeight.apply(layer.weight)
    return functional.conv2d(
        x, weight, layer.bias, layer.stride, layer.padding, layer.dilation, layer.groups
    )


def _active(x: Tensor, layer: nn.Module) -> Tensor:
    """Return the output of a convolution and the ReLU6 after it."""
    assert isinstance(layer, nn.Sequential)
    return _round(_convolve(x, layer[0]), ACTIVE)
