"""Layers whose weights oneDNN packs once, for the instructions of the CPU, fused with what follows.

These are operations that PyTorch's compiler uses; they are not part of its public interface. So
each is tried once on a small example. Where one is missing or wrong, and on GPUs, the layers run as
usual.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class PackedLinear:
    """A linear layer, for one type of numbers: `weight` [outputs, inputs], `bias` [outputs].

    `functional.linear` packs the weights at each call, which takes long beside a few rows.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        self._bias = bias
        self._packed = _can_multiply(weight.device, weight.dtype)
        self._weight = _pack_linear(weight) if self._packed else weight

    def __call__(self, x: Tensor) -> Tensor:
        """Return [..., outputs] for [..., inputs]."""
        if self._packed:
            return _run_linear(x, self._weight, self._bias)
        return functional.linear(x, self._weight, self._bias)


# How oneDNN names the activations that may follow a convolution, and their parameters.
_ACTIVATIONS: dict[type[nn.Module], tuple[str, list[float], str]] = {
    nn.Identity: ("none", [], ""),
    nn.ReLU6: ("hardtanh", [0.0, 6.0], ""),
    nn.SiLU: ("swish", [], ""),
}


class PackedConvolution:
    """A convolution, and an activation after it: ReLU6, SiLU, or none."""

    def __init__(self, layer: nn.Conv2d, activation: nn.Module | None = None) -> None:
        self._layer = layer
        self._activation = activation or nn.Identity()
        self._packed = _can_convolve(layer.weight.device, layer.weight.dtype)
        self._weight: Tensor | None = None

    def __call__(self, x: Tensor, added: Tensor | None = None) -> Tensor:
        """Return [N, C', H', W'] for [N, C, H, W] in channels_last; `added` is added to it."""
        if self._packed:
            if self._weight is None:
                self._weight = _pack_convolution(self._layer, x)
            return _run_convolution(x, self._layer, self._weight, self._activation, added)
        x = self._activation(self._layer(x))
        return x if added is None else x + added


def _pack_linear(weight: Tensor) -> Tensor:
    return torch.ops.mkldnn._reorder_linear_weight(weight)


def _run_linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


def _pack_convolution(layer: nn.Conv2d, x: Tensor) -> Tensor:
    sizes = (layer.padding, layer.stride, layer.dilation, layer.groups)
    return torch.ops.mkldnn._reorder_convolution_weight(layer.weight, *sizes, x.shape)


def _run_convolution(
    x: Tensor, layer: nn.Conv2d, weight: Tensor, activation: nn.Module, added: Tensor | None = None
) -> Tensor:
    """Run a packed convolution; it has no activation where something is `added`."""
    sizes = (layer.padding, layer.stride, layer.dilation, layer.groups)
    convolve: Any = torch.ops.mkldnn._convolution_pointwise
    if added is None:
        return convolve(x, weight, layer.bias, *sizes, *_ACTIVATIONS[type(activation)])
    return convolve.binary(x, added, weight, layer.bias, *sizes, "add", 1.0, None, [], None)


@cache
def _can_multiply(device: torch.device, dtype: torch.dtype) -> bool:
    """Return whether packed linear layers work here."""
    if device.type != "cpu":
        return False
    layer = nn.Linear(32, 32, dtype=dtype)
    x = torch.linspace(-1, 1, 3 * 32).view(3, 1, 32).to(dtype)

    def packed() -> Tensor:
        return _run_linear(x, _pack_linear(layer.weight), layer.bias)

    return _agree(packed, lambda: layer(x))


@cache
def _can_convolve(device: torch.device, dtype: torch.dtype) -> bool:
    """Return whether packed convolutions, with what follows them, work here."""
    if device.type != "cpu":
        return False
    plain = nn.Conv2d(16, 16, 1, dtype=dtype)
    depthwise = nn.Conv2d(16, 16, 5, stride=2, padding=2, groups=16, dtype=dtype)
    x = torch.linspace(-9, 9, 16 * 49).view(1, 7, 7, 16).permute(0, 3, 1, 2).to(dtype)

    def agrees(layer: nn.Conv2d, activation: nn.Module, added: Tensor | None = None) -> bool:
        return _agree(
            lambda: _run_convolution(x, layer, _pack_convolution(layer, x), activation, added),
            lambda: activation(layer(x)) + (0 if added is None else added),
        )

    return (
        agrees(plain, nn.ReLU6())
        and agrees(depthwise, nn.ReLU6())
        and agrees(plain, nn.SiLU())
        and agrees(plain, nn.Identity())
        and agrees(plain, nn.Identity(), x)
    )


@torch.no_grad()
def _agree(packed: Callable[[], Tensor], usual: Callable[[], Tensor]) -> bool:
    """Return whether both give the same."""
    try:
        found = packed()
    except (AttributeError, RuntimeError, TypeError):
        return False
    expected = usual()
    return bool((found - expected).abs().max() <= 0.02 * expected.abs().max())
