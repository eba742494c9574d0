"""Decoding of images: pixels, or an ImageError."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from captioner.errors import ImageError
from captioner.image import ImageLimits, decode_image
from tests.support.hostile_files import KINDS, hostile_images

SIDE = 64
LIMITS = ImageLimits(max_pixels=2_000_000)  # the bytes of larger ones are what takes the time


def seeds() -> Iterator[bytes]:
    for _, _, data in hostile_images(len(KINDS), seed=1):
        yield data


@contextmanager
def target(_folder: Path) -> Iterator[Callable[[bytes], None]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield _decode


def _decode(data: bytes) -> None:
    try:
        image = decode_image(data, SIDE, LIMITS)
    except ImageError as error:
        assert str(error)
    else:
        assert image.pixels.shape == (SIDE, SIDE, 3)
        assert image.width > 0 and image.height > 0 and image.format
