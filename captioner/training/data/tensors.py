"""Captioned images as tensors: pixels and grid features cached on disk, references as tokens."""

import hashlib
import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial as bind
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from captioner.device import mixed_precision, send
from captioner.errors import CaptionerError
from captioner.identity import PIPELINE_VERSION
from captioner.lstm.encoder import Encoder
from captioner.lstm.vocabulary import BOS, EOS, PAD, Vocabulary, tokenize
from captioner.training.data.batches import read_ahead
from captioner.training.data.dataset import Split, decode_split
from captioner.training.processes import threads
from captioner.training.progress import bar, say

ENCODE_BATCH = {"cpu": 32, "cuda": 128}


def cached_pixels(split: Split, size: int, cache: Path) -> npt.NDArray[np.uint8]:
    """Return decoded images, uint8 [N, size, size, 3], memory-mapped from a cached file."""
    key = hashlib.sha256(f"{size}\n{images_key(split)}".encode()).hexdigest()[:16]
    path = cache / f"pixels-{key}.npy"
    if not path.is_file():
        say(f"decoding {len(split):,} images")
        with written(path) as partial:
            shape = len(split), size, size, 3
            decode_split(split, create_array(partial, shape, np.dtype(np.uint8)), threads())
    return np.load(path, mmap_mode="r")


def images_key(split: Split) -> str:
    """Return a text that identifies the pixels of the images.

    It has the file, offset and modification time of each, and the version of what decodes them.
    """
    versions = (f"{split.stores[store].version(image.name)}" for store, image in split.items)
    return "\n".join([f"pipeline {PIPELINE_VERSION}", *versions])


def cached_features(
    pixels: npt.NDArray[np.uint8], encoder: Encoder, cache: Path, device: torch.device
) -> npt.NDArray[np.float16]:
    """Return grid features, float16 [N, L, C], of the encoder's present weights; memory-mapped."""
    middle_rows = pixels[:, pixels.shape[1] // 2]  # reading all pixels would take too long
    key = hashlib.sha256(f"{pixels.shape} {encoder.detector_size}".encode())
    key.update(middle_rows.tobytes())
    # Not by state_dict, which lacks the mean and the standard deviation of pixels.
    for name, value in (*encoder.named_parameters(), *encoder.named_buffers()):
        key.update(name.encode() + value.detach().cpu().numpy().tobytes())
    path = cache / f"features-{key.hexdigest()[:16]}.npy"
    if not path.is_file():
        say(f"encoding {len(pixels):,} images")
        with written(path) as partial:
            encode(pixels, encoder, device, bind(create_array, partial))
    return np.load(path, mmap_mode="r")


@torch.inference_mode()
def encode(
    pixels: npt.NDArray[np.uint8],
    encoder: Encoder,
    device: torch.device,
    create: Callable[..., npt.NDArray[Any]] = np.empty,
) -> npt.NDArray[np.float16]:
    """Return the grid features, float16 [N, L, C], of pixels uint8 [N, S, S, 3].

    `create` makes their array of a shape and a dtype. Raises CaptionerError if they are not finite
    in float16.
    """
    features, end = None, 0
    for grids in _grids(pixels, encoder, device):
        batch = grids.half().cpu().numpy()
        if features is None:
            features = create((len(pixels), *batch.shape[1:]), batch.dtype)
        start, end = end, end + len(batch)
        features[start:end] = batch
        if not np.isfinite(batch).all():
            raise CaptionerError(
                "the features of the encoder are too large for float16: give it weights "
                "(--encoder-weights) or, if it has some, a smaller encoder_learning_rate"
            )
    assert features is not None
    return features


def _grids(
    pixels: npt.NDArray[np.uint8],
    encoder: Encoder,
    device: torch.device,
    mirrorable: list[bool] | None = None,
) -> Iterator[Tensor]:
    """Yield grid features batch by batch; of augmented images if `mirrorable` is given."""
    encoder.eval()
    size = ENCODE_BATCH[device.type]
    batches = [[*range(len(pixels))[start : start + size]] for start in range(0, len(pixels), size)]
    progress = bar(read_ahead(pixels, batches), "encode", " batches", len(batches))
    for rows, images in zip(batches, progress, strict=True):
        batch = send(torch.from_numpy(images), device)
        if mirrorable is not None:
            batch = augment(batch, mirrorable[rows[0] : rows[-1] + 1])
        with mixed_precision(device):
            yield encoder(batch)


@torch.inference_mode()
def mean_features(
    pixels: npt.NDArray[np.uint8],
    encoder: Encoder,
    device: torch.device,
    mirrorable: list[bool] | None = None,
) -> Tensor:
    """Return the mean grid features of each image, float32 [N, C], for pixels uint8 [N, S, S, 3].

    If `mirrorable` is given, the images are augmented first.
    """
    grids = _grids(pixels, encoder, device, mirrorable)
    return torch.cat([grid.float().mean(1) for grid in grids])


@contextmanager
def written(path: Path) -> Iterator[Path]:
    """Give another path to write a .npy file to, which becomes `path` once it is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial.npy")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def create_array(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Create a .npy file that may be larger than the memory; return it memory-mapped, to be filled.

    Raises OSError if the disk has no room for it, where the system can tell so before it is filled.
    """
    array = np.lib.format.open_memmap(path, "w+", dtype, shape)
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return array


@dataclass(frozen=True)
class References:
    """The encoded references of each image, shortest first for efficient teacher forcing."""

    ids: list[list[list[int]]]
    mirrorable: list[bool]  # whether no reference mentions left or right

    @classmethod
    def of(
        cls, captions: Sequence[Sequence[str]], vocabulary: Vocabulary, max_length: int
    ) -> "References":
        """Encode captions, truncated after `max_length` words."""
        encoded = [
            sorted((vocabulary.encode(text)[:max_length] for text in texts), key=len)
            for texts in captions
        ]
        sided = {"left", "right"}
        mirrorable = [not any(sided & set(tokenize(text)) for text in texts) for texts in captions]
        return cls(encoded, mirrorable)

    def tokens(self, images: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return inputs and targets for teacher forcing: int64 [N, B, T] each, padded with PAD."""
        texts = [self.ids[image] for image in images]
        beams = max(len(of_image) for of_image in texts)
        length = 1 + max(len(ids) for of_image in texts for ids in of_image)
        inputs = np.full((len(images), beams, length), PAD)  # tensors take ten times as long
        targets = np.full((len(images), beams, length), PAD)
        for n, of_image in enumerate(texts):
            for b, ids in enumerate(of_image, start=beams - len(of_image)):
                inputs[n, b, : len(ids) + 1] = [BOS, *ids]
                targets[n, b, : len(ids) + 1] = [*ids, EOS]
        return torch.from_numpy(inputs), torch.from_numpy(targets)


def augment(pixels: Tensor, mirrorable: list[bool]) -> Tensor:
    """Crop, zoom, light and mirror uint8 pixels [N, S, S, 3] at random, on their device.

    A crop has 0.75 to 1 of the area, and sides of a ratio up to 1.18 to 1, and becomes a square
    again; brightness, contrast and saturation change by up to a fifth.
    """
    n, device = len(pixels), pixels.device

    def uniform(low: float, high: float) -> Tensor:
        return torch.empty(n, device=device).uniform_(low, high)

    area, ratio = uniform(0.75, 1), uniform(-math.log(1.18), math.log(1.18)).exp()
    width, height = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
    x, y = (1 - width) * uniform(-1, 1), (1 - height) * uniform(-1, 1)
    mirrored = send(torch.tensor(mirrorable), device) & (uniform(0, 1) < 0.5)
    zero = torch.zeros_like(x)
    rows = (torch.where(mirrored, -width, width), zero, x), (zero, height, y)
    crops = torch.stack([torch.stack(row, 1) for row in rows], 1)  # [N, 2, 3]
    images = _cropped(pixels.permute(0, 3, 1, 2).float(), crops)
    images = _lit(images, *(uniform(0.8, 1.2).view(-1, 1, 1, 1) for _ in range(3)))
    return images.round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def _cropped(images: Tensor, crops: Tensor) -> Tensor:
    """Return the crops of images [N, 3, S, S], as large as those, by affine maps [N, 2, 3]."""
    grid = functional.affine_grid(crops, list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, padding_mode="border", align_corners=False)


def _lit(images: Tensor, brightness: Tensor, contrast: Tensor, saturation: Tensor) -> Tensor:
    """Return images [N, 3, S, S], 0 to 255, changed by factors [N, 1, 1, 1]."""
    images = (images * brightness).clamp(max=255)
    mean = _grey(images).mean((1, 2, 3), keepdim=True)
    images = torch.lerp(mean, images, contrast).clamp(0, 255)
    return torch.lerp(_grey(images), images, saturation).clamp(0, 255)


def _grey(images: Tensor) -> Tensor:
    weights = images.new_tensor([0.299, 0.587, 0.114]).view(3, 1, 1)  # ITU-R BT.601
    return (images * weights).sum(1, keepdim=True)
