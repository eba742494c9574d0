"""JPEG files: ordinary ones fast, those that end early, and those that take much memory."""

import io
import random

import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image, JpegImagePlugin

from captioner.image.damage import DAMAGED

END, _SCAN = b"\xff\xd9", b"\xff\xda"
_MAY_LACK = 0.02  # of the pixels
_VISIBLE = 24  # levels of 256
_GREY = 128  # what libjpeg shows where it knows nothing
# Of entropy-coded data that never was; without 0xFF, which would be a marker.
_NOISE = bytes(random.Random(0).choices(range(255), k=1 << 16))


def open_jpeg(data: bytes, place: int = 0) -> JpegImagePlugin.JpegImageFile:
    """Open a JPEG file, the first picture if it holds several.

    Of one that begins at a later place in the data, only the header can be read.
    """
    file = io.BytesIO(data)
    file.seek(place)
    return JpegImagePlugin.JpegImageFile(file, "")


def plain_pixels(data: bytes, size: tuple[int, int]) -> npt.NDArray[np.uint8] | None:
    """Decode a JPEG file to RGB [H, W, 3], at the size that Pillow's draft has chosen.

    None for a damaged or an unusual one. The pixels are those of Pillow, as tests show, which
    copies them twice.
    """
    try:
        pixels = simplejpeg.decode_jpeg(data, min_width=size[0], min_height=size[1])
    except (ValueError, RuntimeError):
        return None
    return pixels if pixels.shape == (size[1], size[0], 3) else None


def with_end(data: bytes, least: tuple[int, int]) -> bytes | None:
    """Return a JPEG file that ends early with an end; None if it lacks more than a trace.

    What follows the end of the data decides about the pixels that it lacks: those that change when
    something else follows. `least` is the size in pixels that is looked at, at least.
    """
    data = data.rstrip(b"\xff")
    if not _has_all_scans(data):
        return None
    ended = data + END
    one, other = (_pixels(each, least) for each in (ended, data + _NOISE + END))
    if one is None or other is None or one.shape != other.shape:
        return None
    differ = np.abs(one - other).max(axis=-1) > _VISIBLE
    unknown = (one == _GREY).all(axis=-1)
    unknown &= np.logical_and.accumulate(unknown.all(axis=1)[::-1])[::-1, None]  # down to the end
    return ended if (differ | unknown).mean() <= _MAY_LACK else None


def _has_all_scans(data: bytes) -> bool:
    """Return whether the scans of a JPEG have begun that hold all coefficients of all colours."""
    picture = open_jpeg(data)
    assert picture.fp is not None  # until it is loaded
    place = data.rfind(_SCAN, 0, picture.fp.tell())
    found: dict[int, set[int]] = {}
    while place >= 0 and len(data) > place + 4 and len(data) >= place + 8 + 2 * data[place + 4]:
        count = data[place + 4]
        first, last = data[place + 5 + 2 * count : place + 7 + 2 * count]
        for colour in data[place + 5 : place + 5 + 2 * count : 2]:
            found.setdefault(colour, set()).update(range(first, last + 1))
        place = data.find(_SCAN, place + 2)
    return len(found) >= picture.layers and all(len(each) >= 64 for each in found.values())


def _pixels(
    data: bytes, least: tuple[int, int]
) -> "np.ndarray[tuple[int, ...], np.dtype[np.int16]] | None":
    try:
        picture = open_jpeg(data)
        picture.draft(None, least)
        return np.asarray(picture.convert("RGB")).astype(np.int16)
    except DAMAGED:
        return None


def coefficient_bytes(picture: Image.Image, size: tuple[int, int], data: bytes) -> int:
    """Return how many bytes of coefficients a JPEG of this size keeps until it is read to its end.

    A progressive one keeps all, and so does one whose colours follow each other.
    """
    layers = getattr(picture, "layer", [])
    scan = data.find(_SCAN)
    in_first_scan = data[scan + 4] if 0 <= scan < len(data) - 4 else len(layers)
    if "progressive" not in picture.info and in_first_scan >= len(layers):
        return 0
    across, down = (max((layer[place] for layer in layers), default=1) for place in (1, 2))
    share = sum(layer[1] * layer[2] for layer in layers) / max(1, across * down)
    return int(2 * size[0] * size[1] * share)
