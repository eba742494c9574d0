"""The floating-point type that a captioner computes in. Importing this does not import torch."""

import os
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from captioner.options import CaptionerOptions

CPU_INFO = Path("/proc/cpuinfo")
NATIVE = {"avx512_bf16", "amx_bf16"}  # instructions of a CPU that make bfloat16 the faster type
SINCE_TORCH = (2, 10)  # PyTorch's own kernels use them


def precision_of(options: CaptionerOptions) -> str | None:
    """Return the precision that a captioner computes in: "float32" or "bfloat16".

    For `auto`, it is the faster one on this machine. A model of Hugging Face then keeps that of its
    weights, "weights"; a captioner that asks a server has none.
    """
    if options.asks_server:
        return None
    if options.precision != "auto":
        return options.precision
    return "weights" if options.kind else fast_precision(options.device)


def fast_precision(device: str) -> str:
    """Return "bfloat16" for GPUs and for CPUs with bfloat16 instructions, else "float32".

    With the device auto, a GPU is used if there is one.
    """
    if device == "cuda" or (device == "auto" and gpu_count() and _torch_has_cuda()):
        return "bfloat16"
    numbers = tuple(int(number) for number in version("torch").split(".")[:2])
    return "bfloat16" if numbers >= SINCE_TORCH and NATIVE & _cpu_flags() else "float32"


def gpu_count() -> int:
    """Count the NVIDIA GPUs that this process may use."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([device for device in visible.split(",") if device not in ("", "-1")])
    return len(list(Path("/dev").glob("nvidia[0-9]*")))


def _torch_has_cuda() -> bool:
    """Return whether the PyTorch that is installed was built for GPUs."""
    torch = find_spec("torch")
    root = Path(torch.origin).parent if torch and torch.origin else Path()
    return (root / "lib" / "libtorch_cuda.so").exists()


def _cpu_flags() -> set[str]:
    """Return the instruction sets of the CPU; none where the system does not list them."""
    try:
        with CPU_INFO.open() as lines:
            return next((set(line.split()) for line in lines if line.startswith("flags")), set())
    except OSError:
        return set()
