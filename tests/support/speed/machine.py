"""What the machine could do: the model's multiply-adds at the rate of a large matrix product."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from captioner.lstm.inference.int8 import Int8Linear
from tests.support.speed.figures import Row, seconds_of
from tests.support.speed.steps import pixel_batches, some
from tests.support.speed.subject import Subject

GIGA = 1e9
SIDES = {"cpu": 2048, "cuda": 8192}  # of the matrices
PRODUCTS = {"cpu": 2, "cuda": 20}  # between two looks at the clock
FLOPS = 2  # floating-point operations in a multiply-add


class Product:
    """A large matrix product in the captioner's precision, on one core or GPU."""

    def __init__(self, subject: Subject) -> None:
        device = subject.captioner.device
        self.side, self.count = SIDES[device.type], PRODUCTS[device.type]
        self._finish = subject.finish
        precision = subject.captioner.precision
        first, second = torch.rand(2, self.side, self.side, device=device)
        if precision == "int8":
            self._product = partial(Int8Linear(second), first)
        else:
            dtype = getattr(torch, precision)
            self._product = partial(torch.mm, first.to(dtype), second.to(dtype))

    def rate(self) -> float:
        """Return its multiply-adds per second."""
        seconds = seconds_of(self._multiply, self._finish)
        return self.count * self.side**3 / seconds

    def _multiply(self) -> None:
        for _ in range(self.count):
            self._product()


def multiply_adds(subject: Subject, paths: Sequence[Path]) -> dict[str, float]:
    """Return the multiply-adds of an image in the encoder and in the search, by their names."""
    paths = some(subject, paths)
    counts = dict.fromkeys(("encode", "search"), 0.0)
    for batch in pixel_batches(subject, paths):
        with FlopCounterMode(display=False, custom_mapping=_PACKED) as encoding:
            features = subject.captioner.encode(batch)
        with FlopCounterMode(display=False, custom_mapping=_PACKED) as searching:
            subject.captioner.search(features)
        for name, counter in zip(counts, (encoding, searching), strict=True):
            counts[name] += counter.get_total_flops() / FLOPS / len(paths)
    return counts


def _of_linear(x: torch.Size, *_: object, out_shape: torch.Size, **__: object) -> int:
    return FLOPS * x.numel() * out_shape[-1]


def _of_convolution(x: torch.Size, *others: object, out_shape: torch.Size, **__: object) -> int:
    """Count those of a convolution; if something is added to it, that comes before the weights."""
    shapes = (each for each in others if isinstance(each, torch.Size) and len(each) == len(x))
    weight, *_ = (shape for shape in shapes if shape != out_shape)
    return FLOPS * out_shape.numel() * weight.numel() // out_shape[1]


# The operations of captioner/lstm/inference/onednn.py and int8.py.
_PACKED = {
    getattr(operations, name): count
    for operations, name, count in (
        (torch.ops.mkldnn, "_linear_pointwise", _of_linear),
        (torch.ops.mkldnn, "_convolution_pointwise", _of_convolution),
        (torch.ops.onednn, "qlinear_pointwise", _of_linear),
        (torch.ops.onednn, "qconv2d_pointwise", _of_convolution),
    )
    if hasattr(operations, name)
}


def machine_rows(counts: Mapping[str, float], rates: Sequence[float]) -> list[Row]:
    """Return lines of the multiply-adds of an image and of the rate of the product."""
    rows = [Row(name, "G multiply-adds an image", [n / GIGA]) for name, n in counts.items()]
    milliseconds = [1000 * sum(counts.values()) / rate for rate in rates]
    return [
        *rows,
        Row("matrix product", "G multiply-adds/s", [rate / GIGA for rate in rates]),
        Row("both at the rate of the product", "ms an image", milliseconds),
    ]
