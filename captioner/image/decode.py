"""An image file or picture -> small upright pixels in sRGB: the three ways to ask for them.

The whole photograph is squeezed into a square, not cropped: captions describe all of it.
"""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from PIL import Image

from captioner.errors import UnreadableImage
from captioner.image.colour.transform import transform_to_srgb
from captioner.image.damage import readable
from captioner.image.formats import raw, signatures
from captioner.image.formats.frames import is_blank, later_frames
from captioner.image.formats.jpeg import plain_pixels
from captioner.image.formats.sizes import size_in_header
from captioner.image.memory import DECODING, ImageLimits, bytes_before_opening, bytes_to_decode
from captioner.image.opening import Opened, load, open_picture
from captioner.image.shrink import GAP, fitted_size, is_squeezed_only, shrunk, squeezed
from captioner.image.upright import orientation_of, upright_size

Pixels = npt.NDArray[np.uint8]
Size = tuple[int, int]


@dataclass(frozen=True)
class DecodedImage:
    """An image ready for a captioner.

    `pixels` is uint8 sRGB [H, W, 3]; `width` and `height` are those of the original picture as
    displayed; `format` is Pillow's name, such as "JPEG".
    """

    pixels: Pixels
    width: int
    height: int
    format: str


_DEFAULT_LIMITS = ImageLimits()


def decode_image(
    image: bytes | Image.Image, size: int, limits: ImageLimits = _DEFAULT_LIMITS
) -> DecodedImage:
    """Decode an image file to `size` x `size` pixels in sRGB.

    The image may be open already, as a picture of PIL. One of that size is not resampled. Of an
    animation, the first frame that shows anything is taken. Thread-safe.

    Raises UnreadableImage if the bytes are not an image or a damaged one, UnsupportedImage if they
    are a file of another kind, and ImageTooLarge, before any pixel is decoded, if the picture
    exceeds the limits or needs more memory than decoding may take. OutOfMemory if it got none.
    """
    return readable(lambda: _small(image, _Square(size), limits))


def decode_fitted(
    image: bytes | Image.Image, side: int, limits: ImageLimits = _DEFAULT_LIMITS
) -> DecodedImage:
    """Decode an image to at most `side` x `side` pixels in its own proportions.

    Otherwise as `decode_image`.
    """
    return readable(lambda: _small(image, _Fitted(side), limits))


def shrink_image(data: bytes, side: int, limits: ImageLimits = _DEFAULT_LIMITS) -> Image.Image:
    """Decode an image file to an upright picture in sRGB of at most `side` x `side` pixels.

    The picture keeps its proportions. Errors are those of `decode_image`.
    """
    return Image.fromarray(decode_fitted(data, side, limits).pixels)


@dataclass(frozen=True)
class _Square:
    """A target: a square, into which a picture is squeezed."""

    side: int
    resample = Image.Resampling.BICUBIC

    def size(self, _original: Size) -> Size:
        return self.side, self.side


@dataclass(frozen=True)
class _Fitted:
    """A target: a square, into which a picture fits."""

    side: int
    resample = Image.Resampling.LANCZOS

    def size(self, original: Size) -> Size:
        return fitted_size(original, self.side)


_Target = _Square | _Fitted


def _small(image: bytes | Image.Image, target: _Target, limits: ImageLimits) -> DecodedImage:
    if isinstance(image, Image.Image):
        return _of_picture(image, target)
    kind = signatures.kind_of(image)
    if kind == signatures.TIFF and raw.is_raw(image):
        kind = signatures.RAW
    if kind == signatures.RAW:
        return _of_raw(image, target, limits)
    return _of_file(kind, image, target, limits)


def _of_picture(picture: Image.Image, target: _Target) -> DecodedImage:
    picture.load()
    orientation = orientation_of(picture) or 1
    pixels = _shrunk(picture, picture.info.get("icc_profile"), target, orientation)
    return DecodedImage(
        pixels, *upright_size(picture.size, orientation), picture.format or "unknown"
    )


def _of_raw(data: bytes, target: _Target, limits: ImageLimits) -> DecodedImage:
    file = raw.read_raw(data)
    if preview := file.full_preview():
        small = _of_file(signatures.JPEG, preview, target, limits, file.orientation or 1)
    else:
        picture, size = raw.develop(data, GAP * target.side, limits)
        small = DecodedImage(_shrunk(picture, None, target), *size, signatures.RAW)
    return replace(small, format=signatures.RAW)


def _of_file(
    kind: str, data: bytes, target: _Target, limits: ImageLimits, orientation: int = 1
) -> DecodedImage:
    """Decode a file as soon as there is room; `orientation` holds if the file has none itself."""
    if kind in signatures.OPEN_WHOLE:
        size = size_in_header(kind, data)
        limits.check(kind, size)
        with DECODING.taken(bytes_before_opening(kind, size, data)):
            opened = open_picture(kind, data)
            _check_size(opened.picture, size)
            return _decoded(opened, size, target, orientation)
    opened = open_picture(kind, data)
    size = opened.picture.size
    limits.check(kind, size)
    if kind == signatures.JPEG:
        opened.picture.draft(None, (GAP * target.side, GAP * target.side))
    with DECODING.taken(bytes_to_decode(kind, opened.picture, size, opened.data)):
        return _decoded(opened, size, target, orientation)


def _decoded(opened: Opened, size: Size, target: _Target, orientation: int) -> DecodedImage:
    if (pixels := _squeezed(opened, target, orientation)) is not None:
        return DecodedImage(pixels, *size, opened.kind)
    picture = load(opened)
    _check_size(picture, size)
    if opened.kind != signatures.JPEG:
        size = picture.size  # HEIF turns pictures upright when it decodes them
    orientation = orientation_of(picture) or orientation
    pixels = _first_that_shows(picture, opened.profile(), target, orientation)
    return DecodedImage(pixels, *upright_size(size, orientation), picture.format or opened.kind)


def _squeezed(opened: Opened, target: _Target, orientation: int) -> Pixels | None:
    """Decode a JPEG the fast way if nothing but a resize follows; otherwise return None.

    Its orientation and profile are in its header, which was read.
    """
    picture, size = opened.picture, (target.side, target.side)
    if opened.kind != signatures.JPEG or picture.mode != "RGB" or not isinstance(target, _Square):
        return None
    if (orientation_of(picture) or orientation) != 1 or not is_squeezed_only(picture.size, size):
        return None
    if transform_to_srgb(opened.profile(), picture.mode):
        return None
    pixels = plain_pixels(opened.data, picture.size)
    return None if pixels is None else squeezed(pixels, size)


def _check_size(picture: Image.Image, size: Size) -> None:
    """Raise UnreadableImage for more pixels than the header says, for which there is no room."""
    if picture.width * picture.height > size[0] * size[1]:
        raise UnreadableImage(
            f"damaged: its header says {size[0]} x {size[1]} pixels, but it has "
            f"{picture.width} x {picture.height}"
        )


def _first_that_shows(
    picture: Image.Image, profile: bytes | None, target: _Target, orientation: int
) -> Pixels:
    """Shrink a picture or, if it is a blank frame of an animation, the first one that is not."""
    first = _shrunk(picture, profile, target, orientation)
    if not getattr(picture, "is_animated", False) or not is_blank(first):
        return first
    later = (_shrunk(frame, profile, target, orientation) for frame in later_frames(picture))
    return next((frame for frame in later if not is_blank(frame)), first)


def _shrunk(
    picture: Image.Image, profile: bytes | None, target: _Target, orientation: int = 1
) -> Pixels:
    colours = transform_to_srgb(profile, picture.mode)
    size = target.size(picture.size)
    return shrunk(picture, size, target.resample, colours, orientation)
