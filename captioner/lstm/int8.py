"""An EfficientNet-Lite in whole numbers of 8 bits, as `captioner quantize` makes it.

A whole number q stands for step * (q - zero) (Jacob et al. 2017, arXiv:1712.05877). Weights have a
step for each output channel and no zero. Pixels are whole numbers from the start. After a ReLU6 the
step is 6 / 255, so that the activation costs nothing: a byte cuts off the same values. The output
of a block may be negative, and has a step of its own, by which the next block reads it; blocks that
add their input add it as it was.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from captioner.errors import CheckpointError
from captioner.lstm.efficientnet_lite import MEAN, STD, EfficientNetLite, InvertedResidual
from captioner.lstm.encoder import Encoder
from captioner.model_directory import INT8, WEIGHTS, hash_of

LARGEST = 127  # of a weight, so that each has its negative


class Scale(NamedTuple):
    """What the whole numbers of a tensor stand for."""

    step: float
    zero: int


PIXELS = Scale(1 / 128, 127)  # with the MEAN and STD of EfficientNet-Lite
ACTIVE = Scale(6 / 255, 0)  # after a ReLU6
BLOCK_ZERO = 128
SOURCE = "source"  # a field of the file's metadata


@dataclass(frozen=True)
class Int8Weights:
    """The weights of a trunk, by the names of its modules.

    For each convolution there are `<name>.weight` int8 [outputs, inputs, k, k], `<name>.steps`
    float32 [outputs] and `<name>.bias` float32 [outputs], and for each inverted residual block
    `<name>.step`, float32 [], of its output as it is read.
    """

    tensors: dict[str, Tensor]
    source: str  # the hash of the file with the weights of the model that they stand for

    def output_scale(self, block: str) -> Scale:
        """Return the scale of the output of a block, by which the next one reads it."""
        step = self.tensors.get(f"{block}.step")
        return ACTIVE if step is None else Scale(step.item(), BLOCK_ZERO)

    def save(self, path: Path) -> None:
        """Write the weights, atomically."""
        partial = path.with_name(f".{path.name}.partial")
        try:
            partial.write_bytes(save(self.tensors, {SOURCE: self.source}))
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


def round_weight(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return whole numbers, of the type of `weight` [outputs, ...], and steps [outputs]."""
    steps = (weight.flatten(1).abs().amax(1) / LARGEST).clamp(min=1e-12)
    return (weight / steps.view(-1, *[1] * (weight.ndim - 1))).round_(), steps


def can_be_int8(encoder: Encoder) -> bool:
    """Return whether an encoder has an EfficientNet-Lite, with the pixels it was published for."""
    mean, std = 255 * encoder.mean.new_tensor(MEAN), 255 * encoder.std.new_tensor(STD)
    usual = encoder.mean.allclose(mean) and encoder.std.allclose(std)
    return isinstance(encoder.trunk, EfficientNetLite) and usual


def load_int8(directory: Path, encoder: Encoder) -> Int8Weights:
    """Read the weights of a model directory for an encoder.

    Raises CheckpointError if there are none, if they are damaged, or if they were made for other
    weights of the model.
    """
    path = directory / INT8
    try:
        with safe_open(path, "pt") as file:
            source = (file.metadata() or {}).get(SOURCE, "")
        weights = Int8Weights(load_file(path), source)
        _check(weights, encoder, hash_of(directory / WEIGHTS))
    except FileNotFoundError:
        why = "there is no such file"
    except (OSError, SafetensorError) as error:
        why = f"cannot be read ({error})"
    except ValueError as error:
        why = str(error)
    else:
        return weights
    raise CheckpointError(
        f"{path}: {why}: make it with `captioner quantize {directory} --images DIR`, or choose "
        "another precision"
    )


def _check(weights: Int8Weights, encoder: Encoder, source: str) -> None:
    """Raise ValueError unless the weights are for this encoder, from a file of this hash."""
    expected, tensors = _shapes(encoder.trunk), weights.tensors
    for name in sorted(expected.keys() | tensors.keys()):
        if not can_be_int8(encoder) or not _fits(tensors.get(name), name, expected.get(name)):
            raise ValueError(f"does not fit the encoder ({name})")
        if not _is_usable(tensors[name], name):
            raise ValueError(f"{name} has values that are not finite or not positive")
    if weights.source != source:
        raise ValueError(f"it was made for other weights than {WEIGHTS} has")


def _fits(tensor: Tensor | None, name: str, shape: tuple[int, ...] | None) -> bool:
    dtype = torch.int8 if name.endswith(".weight") else torch.float32
    return tensor is not None and tensor.dtype == dtype and tensor.shape == shape


def _is_usable(tensor: Tensor, name: str) -> bool:
    is_step = name.rpartition(".")[2] in ("step", "steps")
    return bool(tensor.isfinite().all()) and not (is_step and bool((tensor <= 0).any()))


def _shapes(trunk: nn.Module) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the tensors for a trunk."""
    shapes: dict[str, tuple[int, ...]] = {}
    for name, module in trunk.named_modules():
        if isinstance(module, nn.Conv2d):
            shapes[f"{name}.weight"] = tuple(module.weight.shape)
            shapes |= {f"{name}.{each}": (module.out_channels,) for each in ("steps", "bias")}
        elif isinstance(module, InvertedResidual):
            shapes[f"{name}.step"] = ()
    return shapes
