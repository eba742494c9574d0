"""Make the weights of an encoder for int8: it learns to give the features that it gave before.

Its weights and activations are rounded in each forward pass. What it learns from is the encoder as
it was (Hinton et al. 2015, arXiv:1503.02531), so the images need no captions.
"""

import copy
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from captioner.allocator import keep_freed_memory
from captioner.device import choose_device, send
from captioner.errors import CaptionerError
from captioner.lstm.checkpoint import load_checkpoint
from captioner.lstm.efficientnet_lite import EfficientNetLite, InvertedResidual
from captioner.lstm.encoder import Encoder
from captioner.lstm.int8 import Int8Weights, Scale, can_be_int8, round_weight
from captioner.model_directory import CONFIG, INT8, WEIGHTS, find_finished, hash_of
from captioner.training.config import make_folder
from captioner.training.data.batches import random_batches
from captioner.training.data.dataset import decode_some
from captioner.training.data.tensors import augment
from captioner.training.processes import threads
from captioner.training.progress import bar, say
from captioner.training.rounding import best_scale, rounded_features

STEPS = 2000  # of 16 images: half an hour on two cores
MOST_IMAGES = 4096  # to learn from
HELD_OUT = 32  # to measure the error on
BATCH = 16
RANGE_BATCHES = 8  # of images whose activations give the steps of the blocks
LEARNING_RATE = 1.2e-4  # relative to the size of a tensor's values
SEEN = 0.75  # of an image's side: the features of a part do as well, in half the time
SAMPLES = 20_000  # of the activations of a block and batch


def quantize(
    model: str, images: Sequence[Path], *, steps: int = STEPS, device: str = "auto", seed: int = 1
) -> tuple[Path, float]:
    """Write the weights for int8 of a model directory.

    Return their path, and the error of the features, relative to their size, on some of the images.
    The images lie in directories and tars. Raises CaptionerError (CheckpointError, DatasetError) if
    there are none, or no such model, or if its encoder cannot be quantised.
    """
    keep_freed_memory()
    torch.manual_seed(seed)
    if not (Path(model) / CONFIG).is_file():  # not the name of a bundled one, which stays as it is
        raise CaptionerError(f"{model}: give a model directory, which has a {CONFIG}")
    directory = find_finished(model)
    make_folder(directory)  # before the work of half an hour, not after it
    checkpoint = load_checkpoint(directory)
    encoder = checkpoint.model.encoder
    if not can_be_int8(encoder):
        raise CaptionerError(
            f"{model} cannot compute in int8: only efficientnet_lite0 can, with its own "
            f"mean and std, not the encoder {checkpoint.model.config.encoder}"
        )
    pixels = decode_some(images, checkpoint.model.config.image_size, MOST_IMAGES, threads())
    np.random.default_rng(seed).shuffle(pixels)  # they come in the order of their names
    reader = cast(nn.Linear, checkpoint.model.decoder.project_grid[0]).weight.detach()
    on = choose_device(device)
    say(f"quantizing; images to learn from: {len(pixels):,}")
    learner = Learner(encoder.to(on), reader.to(on))
    error = learner.learn(pixels, steps)
    if not math.isfinite(error):
        raise CaptionerError(f"the features of {model} in whole numbers are not finite")
    weights = Int8Weights(learner.tensors(), hash_of(directory / WEIGHTS))
    weights.save(directory / INT8)
    return directory / INT8, error


class Learner:
    """An encoder that learns to round; `reader` [H, C] is what the decoder makes of its features.

    The reader may read more channels than those of the encoder's trunk, behind them.
    """

    def __init__(self, encoder: Encoder, reader: Tensor) -> None:
        self._encoder = encoder.eval().requires_grad_(False)
        self._device = encoder.mean.device
        trunk = copy.deepcopy(encoder.trunk).requires_grad_(True)
        self._trunk = cast(EfficientNetLite, trunk)
        self._scales: dict[str, Scale] = {}
        self._reader = reader

    def learn(self, pixels: npt.NDArray[np.uint8], steps: int) -> float:
        """Learn from images uint8 [N, S, S, 3]; return the error of the features on some of them.

        With enough images, those are none that it learns from.
        """
        held_out = pixels[:HELD_OUT]
        seen = pixels[HELD_OUT:] if len(pixels) > 2 * HELD_OUT else pixels
        self._scales = self._choose_scales(seen[: RANGE_BATCHES * BATCH])
        parameters = [each for each in self._trunk.parameters() if each.any()]
        sizes = [each.detach().pow(2).mean().sqrt().item() for each in parameters]
        # The sizes differ by orders of magnitude, since BatchNorm is folded into the weights.
        groups = [
            {"params": [each], "lr": LEARNING_RATE * size}
            for each, size in zip(parameters, sizes, strict=True)
        ]
        optimizer = torch.optim.Adam(groups, betas=(0.9, 0.99))
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, steps))
        progress = bar(range(steps), "quantize", " steps")
        for _, batch in zip(progress, _batches(seen), strict=False):
            images = _part(augment(send(batch, self._device), [True] * len(batch)))
            loss = self._loss(images)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            progress.set_postfix_str(f"error {math.sqrt(loss.item() / 2):.1%}", refresh=False)
        return self.error(held_out)

    def tensors(self) -> dict[str, Tensor]:
        """Return the rounded weights; see Int8Weights."""
        tensors = {f"{name}.step": torch.tensor(each.step) for name, each in self._scales.items()}
        for name, layer in self._trunk.named_modules():
            if isinstance(layer, nn.Conv2d):
                numbers, steps = round_weight(layer.weight.detach())
                tensors[f"{name}.weight"] = numbers.to(torch.int8)
                tensors[f"{name}.steps"] = steps
                tensors[f"{name}.bias"] = cast(Tensor, layer.bias).detach()
        return {name: each.cpu().contiguous() for name, each in tensors.items()}

    @torch.inference_mode()
    def error(self, pixels: npt.NDArray[np.uint8]) -> float:
        """Return the error of the features of images, relative to their size."""
        squares = torch.zeros(2, device=self._device)
        for images in torch.split(torch.from_numpy(pixels), BATCH):
            errors, features = self._errors(send(images, self._device))
            squares += torch.stack([errors.pow(2).sum(), features.pow(2).sum()])
        return math.sqrt(squares[0] / squares[1])

    def _loss(self, images: Tensor) -> Tensor:
        """Return the squared relative errors of the features, and of what the decoder reads."""
        errors, features = self._errors(images)
        reader = self._reader[:, : features.shape[1]]
        read, target = (torch.einsum("nchw,kc->nkhw", x, reader) for x in (errors, features))
        return _square(errors) / _square(features) + _square(read) / _square(target)

    def _errors(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the errors of the rounded features, and the true ones: [N, C, H, W] each."""
        images = self._encoder.normalize(pixels)
        features = self._encoder.trunk(images)
        return rounded_features(self._trunk, images, self._scales) - features, features

    @torch.inference_mode()
    def _choose_scales(self, pixels: npt.NDArray[np.uint8]) -> dict[str, Scale]:
        """Return the scale of each block's output by which it is rounded with the least error."""
        found: dict[str, list[Tensor]] = {}
        hooks = []
        for name, block in self._encoder.trunk.named_modules():
            if isinstance(block, InvertedResidual):
                samples = found.setdefault(name, [])
                hooks.append(block.register_forward_hook(_sampling(samples)))
        for images in torch.split(torch.from_numpy(pixels), BATCH):
            self._encoder.trunk(self._encoder.normalize(send(images, self._device)))
        for hook in hooks:
            hook.remove()
        return {name: best_scale(torch.cat(samples)) for name, samples in found.items()}


def _square(x: Tensor) -> Tensor:
    return x.pow(2).mean()


def _rate(step: int, steps: int) -> float:
    """Return the share of the learning rate: it rises shortly, and falls along a cosine."""
    warm = max(1, steps // 20)
    return min(1.0, (step + 1) / warm) * (1 + math.cos(math.pi * step / steps)) / 2


def _batches(pixels: npt.NDArray[np.uint8]) -> Iterator[Tensor]:
    """Yield batches of images at random, without end."""
    while True:
        for rows in random_batches(len(pixels), min(BATCH, len(pixels))):
            yield torch.from_numpy(pixels[rows])


def _part(images: Tensor) -> Tensor:
    """Return a part of images [N, S, S, 3], the same of each."""
    side = images.shape[1]
    part = max(32, int(SEEN * side) // 32 * 32)
    y, x = torch.randint(side - part + 1, (2,)).tolist()
    return images[:, y : y + part, x : x + part].contiguous()


def _sampling(samples: list[Tensor]) -> Any:
    """Return a hook that keeps some of a module's output."""

    def keep(module: nn.Module, inputs: Any, output: Tensor) -> None:
        values = output.flatten()
        samples.append(values[torch.randint(len(values), (SAMPLES,), device=values.device)])

    return keep
