"""Values of more than 8 bits -> 8-bit grey: 16-bit, integer and floating-point pictures."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, TiffImagePlugin

_BITS, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339
_LOWEST, _HIGHEST = (280, 340), (281, 341)  # tags of a TIFF with the values of black and white
_SAMPLES = 512  # a side, of the values that are looked at
_STRAYS = 0.1  # per cent of the values, dark and bright, that say nothing about the range
_SLACK = 1.1  # values that overshoot a customary range, such as sharpened edges
_USED = 1 / 16  # of a customary range, by the brightest values of a picture that has it

Values = npt.NDArray[np.float32]


def is_deep(mode: str) -> bool:
    """Return whether a mode of Pillow has more than 8 bits."""
    return mode in ("I", "F") or mode.startswith("I;16")


@dataclass(frozen=True)
class Depth:
    """The values of a deep picture that are shown black and white."""

    black: float
    white: float
    unsigned: bool = False  # 32-bit integers, which Pillow holds as signed ones

    def to_grey(self, picture: Image.Image) -> Image.Image:
        """Return a part of the picture as mode L. NaN is black."""
        values = _values(picture, self.unsigned)
        span = self.white - self.black
        scale = 255 / (span if abs(span) > 1e-30 else 1e-30)
        scaled = np.nan_to_num(values * scale - self.black * scale, nan=0, posinf=255, neginf=0)
        return Image.fromarray(np.rint(scaled.clip(0, 255)).astype(np.uint8))


def depth_of(picture: Image.Image) -> Callable[[Image.Image], Image.Image]:
    """Return the function that makes parts of a deep picture grey; it is the same for all parts."""
    tags = getattr(picture, "tag_v2", {})
    unsigned = bool(tags) and picture.mode == "I" and _first(tags, _SAMPLE_FORMAT) in (None, 1)
    black, white = _tagged_range(tags) or _range(picture, tags, unsigned)
    if tags and _first(tags, _PHOTOMETRIC) == 0:  # white is zero
        black, white = white, black
    return Depth(black, white, unsigned).to_grey


def _values(picture: Image.Image, unsigned: bool) -> Values:
    values = np.asarray(picture)
    return (values.view(np.uint32) if unsigned else values).astype(np.float32)


def _tagged_range(
    tags: TiffImagePlugin.ImageFileDirectory_v2 | dict[int, object],
) -> tuple[float, float] | None:
    """Return the range that the tags of a TIFF state; not its defaults, which say nothing."""
    low, high = (_first(tags, *names) for names in (_LOWEST, _HIGHEST))
    if high is None or not (low or 0) < high < float("inf"):
        return None
    return low or 0, high


def _first(
    tags: TiffImagePlugin.ImageFileDirectory_v2 | dict[int, object], *names: int
) -> float | None:
    for name in names:
        value = tags.get(name)
        value = value[0] if isinstance(value, tuple) and value else value
        if isinstance(value, int | float):
            return float(value)
    return None


def _range(picture: Image.Image, tags: object, unsigned: bool) -> tuple[float, float]:
    """Return the values of black and white: a customary range if the values fit it, else their own.

    16 bits have their own range. The modes "I" and "F" define none, and few values may lie far
    from all others.
    """
    if picture.mode.startswith("I;16"):
        bits = (
            _first(tags, _BITS) if isinstance(tags, TiffImagePlugin.ImageFileDirectory_v2) else None
        )
        return 0, 2 ** min(max(bits or 16, 1), 16) - 1
    if picture.format == "PPM" and picture.mode == "I":
        return 0, 65535
    values = _values(_sample(picture), unsigned)
    finite = values[np.isfinite(values)].astype(np.float64)
    if not finite.size:
        return 0, 1
    low, high = (float(value) for value in np.percentile(finite, [_STRAYS, 100 - _STRAYS]))
    for white in (1.0, 255.0, 65535.0, 2.0**32 - 1 if unsigned else 2.0**31 - 1):
        if low >= (1 - _SLACK) * white and white * _USED < high <= white * _SLACK:
            return 0, white
    return (0, high) if 0 <= low < high / 4 else (low, high)


def _sample(picture: Image.Image) -> Image.Image:
    size = tuple(min(side, _SAMPLES) for side in picture.size)
    return picture.resize((size[0], size[1]), Image.Resampling.NEAREST)
