"""The device to compute on, copies to and from it, and the floating-point type fastest there."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from captioner.errors import CaptionerError
from captioner.precision import fast_precision

# Of errors that PyTorch raises as a mere RuntimeError.
_OUT_OF_MEMORY = ("DefaultCPUAllocator", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED")


def choose_device(name: str) -> torch.device:
    """Return the device for "auto", "cpu" or "cuda"; CaptionerError if it does not exist."""
    if name not in ("auto", "cpu", "cuda"):
        raise CaptionerError(f"unknown device {name!r}: choose auto, cpu or cuda")
    available = torch.cuda.is_available()
    if name == "auto":
        name = "cuda" if available else "cpu"
    if name == "cuda" and not available:
        raise CaptionerError("no CUDA device is available: choose the device cpu or auto")
    return torch.device(name)


def stack_on(
    device: torch.device, images: Sequence[npt.NDArray[np.uint8]] | npt.NDArray[np.uint8]
) -> Tensor:
    """Return arrays of one shape as a tensor uint8 [N, ...] on a device.

    A GPU copies them from pinned memory while this thread goes on.
    """
    shape = len(images), *images[0].shape
    stacked = torch.empty(shape, dtype=torch.uint8, pin_memory=device.type == "cuda")
    np.stack([*images], out=stacked.numpy())
    return stacked.to(device, non_blocking=True)


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor on a device; a GPU copies it from pinned memory while this thread goes on."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def to_cpu(*tensors: Tensor) -> list[Tensor]:
    """Return the tensors of one device on the CPU, after one wait for a GPU in all."""
    copies = [tensor.to("cpu", non_blocking=True) for tensor in tensors]
    if tensors[0].is_cuda:
        torch.cuda.current_stream(tensors[0].device).synchronize()
    return copies


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether there was not enough memory, of a GPU or of the machine."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _OUT_OF_MEMORY)


def compute_dtype(device: torch.device) -> torch.dtype:
    """Return bfloat16 for GPUs and for CPUs with instructions for it, else float32.

    Unlike float16, it has the range of float32, so that gradients need no scale.
    """
    return torch.float32 if fast_precision(device.type) == "float32" else torch.bfloat16


def mixed_precision(device: torch.device, precision: str = "auto") -> torch.autocast:
    """Return autocast to `compute_dtype`, for training; without effect where that is float32.

    The precision "float32" computes in that everywhere.
    """
    dtype = torch.float32 if precision == "float32" else compute_dtype(device)
    return torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32)


class _Float32Convolution(nn.Conv2d):
    """A convolution that computes its gradients outside autocast."""

    def forward(self, x: Tensor) -> Tensor:
        if not torch.is_grad_enabled():
            return super().forward(x)
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x.float()).to(x.dtype)


def prepare_training(model: nn.Module, device: torch.device) -> None:
    """Make depthwise convolutions train in float32 on a CPU, even under `mixed_precision`.

    oneDNN has no fast bfloat16 kernel for their gradients, which would take most of a step.
    """
    if device.type != "cpu":
        return
    for module in model.modules():
        if type(module) is nn.Conv2d and module.groups == module.in_channels > 1:
            # Unlike a wrapper, this keeps parameters, state-dict keys and hooks as they are.
            module.__class__ = _Float32Convolution
