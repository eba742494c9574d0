"""Packed layers give what PyTorch's give, whatever PyTorch offers."""

import platform
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from captioner.lstm.inference import onednn
from captioner.lstm.inference.onednn import PackedConvolution, PackedLinear

TYPES = [torch.float32, torch.bfloat16]
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 0.05}


@pytest.fixture(autouse=True)
def forget_what_works() -> Iterator[None]:
    yield
    onednn._can_multiply.cache_clear()
    onednn._can_convolve.cache_clear()


@pytest.fixture(params=["as it is", "missing", "changed", "wrong"])
def operations(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let PyTorch's operations be as they are, or as another version might have them."""

    def missing(*_: object) -> Tensor:
        return torch.ops.mkldnn.no_such_operation()

    def changed(*_: object) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise("one argument")

    def wrong(x: Tensor, *_: object) -> Tensor:
        return torch.zeros_like(x)

    onednn._can_multiply.cache_clear()
    onednn._can_convolve.cache_clear()
    operation = {"missing": missing, "changed": changed, "wrong": wrong}.get(request.param)
    if operation:
        monkeypatch.setattr(onednn, "_run_linear", operation)
        monkeypatch.setattr(onednn, "_run_convolution", operation)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="known of x86-64 only")
def test_pytorch_has_the_operations() -> None:
    cpu = torch.device("cpu")
    assert onednn._can_multiply(cpu, torch.float32) and onednn._can_convolve(cpu, torch.float32)


@pytest.mark.usefixtures("operations")
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("bias", [True, False])
@torch.inference_mode()
def test_packed_linear_layers(dtype: torch.dtype, bias: bool) -> None:
    layer = nn.Linear(48, 37, bias=bias, dtype=dtype)
    packed = PackedLinear(layer.weight, layer.bias)
    for shape in ((48,), (1, 48), (5, 3, 48), (70, 48)):
        x = torch.randn(shape).to(dtype)
        difference = (packed(x) - layer(x)).abs().max()
        assert packed(x).shape == layer(x).shape and difference <= TOLERANCE[dtype]


@pytest.mark.usefixtures("operations")
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("groups", [1, 16])
@torch.inference_mode()
def test_packed_convolutions_and_what_follows_them(dtype: torch.dtype, groups: int) -> None:
    layer = nn.Conv2d(16, 16, 3, padding=1, groups=groups, dtype=dtype)
    plain, active = PackedConvolution(layer), PackedConvolution(layer, nn.ReLU6())
    for size in ((4, 16, 8, 8), (1, 16, 8, 8), (3, 16, 5, 9)):
        x = (9 * torch.randn(size)).to(dtype, memory_format=torch.channels_last)
        before, expected = x.clone(), layer(x)
        tolerance = TOLERANCE[dtype] * expected.abs().max()
        assert (plain(x) - expected).abs().max() <= tolerance
        assert (plain(x, added=x) - (expected + x)).abs().max() <= tolerance
        assert (active(x) - functional.relu6(expected)).abs().max() <= tolerance
        assert torch.equal(x, before)
