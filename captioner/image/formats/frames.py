"""Which of several pictures in a file is the picture."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile, TiffImagePlugin

from captioner.image.damage import DAMAGED

_SUBFILE, _REDUCED, _MASK = 254, 1, 4  # a TIFF's tag, and its bits
_PAGES = 64  # of a TIFF that are looked at
_FRAMES = 16  # of an animation that are looked at
_ANIMATED = ("GIF", "WEBP", "PNG")


def turn_to_picture(picture: ImageFile.ImageFile) -> None:
    """Turn a TIFF to its first page or, if that is a reduced image, to the largest that is none."""
    if not isinstance(picture, TiffImagePlugin.TiffImageFile) or not _is_extra(picture):
        return
    sizes: dict[int, int] = {}
    for number in range(_PAGES):
        try:
            picture.seek(number)
        except EOFError:
            break
        except DAMAGED:
            continue
        if not _is_extra(picture):
            sizes[number] = picture.width * picture.height
    picture.seek(max(sizes, key=lambda number: sizes[number], default=0))


def _is_extra(page: TiffImagePlugin.TiffImageFile) -> bool:
    """Return whether a page is a smaller image of another, or a mask."""
    kind = page.tag_v2.get(_SUBFILE, 0)
    return isinstance(kind, int) and bool(kind & (_REDUCED | _MASK))


def later_frames(picture: Image.Image) -> Iterator[Image.Image]:
    """Turn an animation to the frames after its first one, some of them, and yield it each time."""
    if picture.format not in _ANIMATED or not getattr(picture, "is_animated", False):
        return
    for number in range(1, _FRAMES):
        try:
            picture.seek(number)
            picture.load()
        except DAMAGED:
            return
        yield picture


def is_blank(pixels: npt.NDArray[np.uint8]) -> bool:
    """Return whether all pixels [H, W, 3] are the same."""
    return bool((pixels == pixels[0, 0]).all())
