"""The captioner that is measured, and the machine that it runs on."""

import os
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path

import torch

from captioner.jobs.execution.worker.run_state import load_captioner
from captioner.lstm.captioner import LstmCaptioner
from captioner.options import CaptionerOptions

CPU_INFO = Path("/proc/cpuinfo")
TELLING = ("avx2", "avx512f", "bf16", "fp16", "vnni", "amx")  # in the names of flags that matter


@dataclass(frozen=True)
class Subject:
    """A captioner of this package on a device, in a precision."""

    checkpoint: str
    device: str
    precision: str

    @cached_property
    def captioner(self) -> LstmCaptioner:
        """The captioner as a worker loads it, in this process, which computes on one thread."""
        torch.set_num_threads(1)
        options = CaptionerOptions(self.checkpoint, self.device, self.precision)
        captioner = load_captioner(options)
        assert isinstance(captioner, LstmCaptioner)
        return captioner

    @property
    def arguments(self) -> list[str]:
        """The options of commands that choose this captioner."""
        options = {
            "checkpoint": self.checkpoint,
            "device": self.device,
            "precision": self.precision,
        }
        return [word for name, value in options.items() for word in (f"--{name}", value)]

    @property
    def dtype(self) -> torch.dtype:
        """The type of what the captioner computes, but for its int8."""
        precision = self.captioner.precision
        return torch.float32 if precision == "int8" else getattr(torch, precision)

    @property
    def gpus(self) -> int:
        """How many GPUs a run uses."""
        return torch.cuda.device_count() if self.captioner.device.type == "cuda" else 0

    @property
    def finish(self) -> Callable[[], object]:
        """A function that waits until the device has done all that was begun."""
        return torch.cuda.synchronize if self.gpus else lambda: None


def core_count() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0))


@contextmanager
def on_cores(count: int) -> Iterator[None]:
    """Let the processes that are started within the context use only so many cores."""
    all_of_them = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(all_of_them)[:count])
    try:
        yield
    finally:
        os.sched_setaffinity(0, all_of_them)


def load_of_machine() -> list[float]:
    """Return the processes that want to run, as means of the last 1, 5 and 15 minutes."""
    return [round(load, 2) for load in os.getloadavg()]


def describe_machine(subject: Subject) -> dict[str, object]:
    """Return what the figures depend on: the processor, the captioner, PyTorch."""
    described = {
        "processor": _cpu_line("model name") or platform.processor() or platform.machine(),
        "flags": [flag for flag in _cpu_line("flags").split() if any(t in flag for t in TELLING)],
        "cores": core_count(),
        "captioner": subject.captioner.identity,
        "precision": subject.captioner.precision,
        "torch": version("torch"),
    }
    if subject.gpus:
        described["gpu"] = f"{subject.gpus} x {torch.cuda.get_device_name()}"
    return described


def _cpu_line(name: str) -> str:
    """Return a value of the first core, as Linux lists them; an empty string elsewhere."""
    try:
        with CPU_INFO.open() as lines:
            found = (line.partition(":")[2].strip() for line in lines if line.startswith(name))
            return next(found, "")
    except OSError:
        return ""
