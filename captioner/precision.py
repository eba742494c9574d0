"""The type of numbers that a captioner computes in. Importing this does not import torch."""

import os
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from captioner.errors import CaptionerError
from captioner.options import CaptionerOptions

CPU_INFO = Path("/proc/cpuinfo")
# Instructions of CPUs for the shorter types.
BFLOAT16 = {"avx512_bf16", "amx_bf16"}
FLOAT16 = {"avx512_fp16", "amx_fp16"}
INT8 = {"avx512_vnni", "avx_vnni"}
SINCE_TORCH = (2, 10)  # PyTorch's own kernels use them


def precision_of(options: CaptionerOptions) -> str | None:
    """Return the precision that a captioner computes in: one of PRECISIONS but "auto".

    For `auto`, it is the fastest one on this machine. A model of Hugging Face then keeps that of
    its weights, "weights"; a captioner that asks a server has none.
    """
    if options.asks_server:
        return None
    if options.precision != "auto":
        return options.precision
    return "weights" if options.kind else fast_precision(options.device)


def fast_precision(device: str) -> str:
    """Return "float16" for GPUs, "bfloat16" for CPUs with instructions for it, else "float32".

    GPUs are as fast in both short types, and float16 rounds eight times less. With the device auto,
    a GPU is used if there is one.
    """
    if expected_device(device) == "cuda":
        return "float16"
    numbers = tuple(int(number) for number in version("torch").split(".")[:2])
    return "bfloat16" if numbers >= SINCE_TORCH and BFLOAT16 & _cpu_flags() else "float32"


def expected_device(device: str) -> str:
    """Return "cpu" or "cuda" for "auto", "cpu" or "cuda", without asking the driver of a GPU."""
    if device == "auto":
        return "cuda" if gpu_count() and _torch_has_cuda() else "cpu"
    return device


def check_precision(precision: str, device: str) -> None:
    """Raise CaptionerError for a type that the device has no instructions for.

    On a CPU, float16 would take ages; int8 would be wrong.
    """
    if precision == "float16" and device == "cpu" and not FLOAT16 & _cpu_flags():
        raise CaptionerError(
            "PyTorch can use no GPU here, and this CPU has no instructions for float16: choose "
            "another precision, such as float32"
        )
    if precision == "int8" and device == "cuda":
        raise CaptionerError("int8 is for CPUs: choose the device cpu, or another precision")
    if precision == "int8" and not INT8 & _cpu_flags():
        raise CaptionerError(
            "this CPU has no instructions for int8 (VNNI): choose another precision"
        )


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
