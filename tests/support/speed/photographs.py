"""The photographs of the speed benchmark: those that are given, or smooth ones of many sizes."""

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

from captioner.jobs.sources.open_source import open_source

SMALL = ("224x224", "500x375")
LARGE = {"1600x1200": 8, "4000x3000": 2}  # how many of each: they take long
GIVEN = "given"
COARSEST = 4  # cells across a picture, in which it is lighter or darker
CONTRAST, FINER, NOISE = 40.0, 0.65, 3.0  # levels of 256; a share of the next coarser ones; levels
QUALITY = 90

Photographs = Mapping[str, Sequence[Path]]  # by their size, or GIVEN


def small_photographs(given: Path | None, limit: int, folder: Path) -> Photographs:
    """Return `limit` of the given photographs, or generated ones of each small size.

    Given ones are read once, so that the disk is no factor.
    """
    if given is None:
        return {size: write_photographs(folder / size, size, limit) for size in SMALL}
    batches = open_source(given).batches
    uris = (uri for batch in batches for uri in batch["image_uri"].to_pylist())
    return {GIVEN: [Path(uri) for uri in islice(uris, limit) if Path(uri).read_bytes()]}


def large_photographs(folder: Path) -> Photographs:
    """Return a few generated photographs of each large size."""
    return {size: write_photographs(folder / size, size, count) for size, count in LARGE.items()}


def write_photographs(folder: Path, size: str, count: int, first: int = 0) -> list[Path]:
    """Write JPEG files of a size such as "224x224", with the numbers from `first`."""
    folder.mkdir(parents=True, exist_ok=True)
    width, height = map(int, size.split("x"))
    paths = [folder / f"{number:06d}.jpg" for number in range(first, first + count)]
    for number, path in enumerate(paths, first):
        smooth_picture(number, width, height).save(path, quality=QUALITY)
    return paths


def smooth_picture(seed: int, width: int, height: int) -> Image.Image:
    """Return a picture with as much detail of each size as photographs have, the finest as noise.

    It grows from a few cells, twice as wide each time, with finer detail added.
    """
    random = np.random.default_rng(seed)
    bands = np.full((3, 1, 1), 128, np.float32)
    contrast, cells = CONTRAST, COARSEST
    while cells < 2 * width:
        size = (min(cells, width), max(min(cells, width) * height // width, 1))
        shape = (3, size[1], size[0])
        bands = _enlarged(bands, size) + contrast * random.standard_normal(shape, np.float32)
        contrast, cells = max(contrast * FINER, NOISE), 2 * cells
    return Image.fromarray(bands.transpose(1, 2, 0).clip(0, 255).astype(np.uint8))


def _enlarged(bands: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    pictures = [Image.fromarray(band).resize(size, Image.Resampling.BICUBIC) for band in bands]
    return np.stack([np.asarray(picture) for picture in pictures])
