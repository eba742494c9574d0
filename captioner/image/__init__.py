"""Image bytes -> pixels: any common format and mode to upright 8-bit sRGB.

The way of the data: `formats.signatures` tells what kind of file it is, `opening` reads its header
by what `formats` knows of its kind, `memory` makes room for it, and `shrink` makes it small on the
way to sRGB, by `depth` and `colour`. `damage` says what went wrong.
"""

from captioner.image.decode import (
    DecodedImage,
    Pixels,
    decode_fitted,
    decode_image,
    shrink_image,
)
from captioner.image.memory import ImageLimits

__all__ = [
    "DecodedImage",
    "ImageLimits",
    "Pixels",
    "decode_fitted",
    "decode_image",
    "shrink_image",
]
