"""Which device to compute on, and in which floating-point type it is fastest; memory."""

import ctypes

import torch
from torch import Tensor, nn

from captioner.errors import CaptionerError


def choose_device(name: str) -> torch.device:
    """The device for "auto", "cpu" or "cuda"; raises CaptionerError if there is no such device."""
    if name not in ("auto", "cpu", "cuda"):
        raise CaptionerError(f"unknown device {name!r}: choose auto, cpu or cuda")
    available = torch.cuda.is_available()
    if name == "auto":
        name = "cuda" if available else "cpu"
    if name == "cuda" and not available:
        raise CaptionerError("no CUDA device is available here: choose the device cpu, or auto")
    return torch.device(name)


def compute_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 on GPUs and CPUs with instructions for it; else float32, which is faster there."""
    if device.type == "cuda":
        return torch.bfloat16
    # Reported since torch 2.10; on older ones the CPU computes in float32.
    capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    native = capabilities.get("avx512_bf16") or capabilities.get("amx_bf16")
    return torch.bfloat16 if native else torch.float32


def mixed_precision(device: torch.device) -> torch.autocast:
    """Autocast to `compute_dtype`, for training; does nothing where that is float32."""
    dtype = compute_dtype(device)
    return torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32)


class _Float32Convolution(nn.Conv2d):
    """Leaves autocast for its own computation."""

    def forward(self, x: Tensor) -> Tensor:
        if not torch.is_grad_enabled():
            return super().forward(x)
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x.float()).to(x.dtype)


def prepare_training(model: nn.Module, device: torch.device) -> None:
    """Have depthwise convolutions train in float32 on a CPU, whatever `mixed_precision` says.

    oneDNN has no fast bfloat16 kernel for their gradients: they would take most of the step.
    """
    if device.type != "cpu":
        return
    for module in model.modules():
        if type(module) is nn.Conv2d and module.groups == module.in_channels > 1:
            module.__class__ = _Float32Convolution


# malloc.h of glibc: parameter, value in bytes or a number
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = (-1, 2**31 - 1), (-2, 2**26), (-4, 0)


def keep_freed_memory() -> None:
    """Have this process keep the memory it frees, for the next batch; call it once, early.

    glibc gives large buffers back to the system whenever they are freed. A network that takes them
    anew for every batch then spends much of its time on a CPU in page faults. Elsewhere than on
    glibc nothing happens.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:
        for parameter, value in (_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX):
            mallopt(parameter, value)
