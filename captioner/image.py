"""Image bytes -> pixels: any common format and mode to an upright 8-bit RGB square.

The whole photograph is squeezed into the square, not cropped: captions describe all of it.
"""

import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageFile

from captioner.errors import ImageTooLarge, UnreadableImage

# Formats of photographs. Pillow's other formats are left out: nobody keeps photographs in them, and
# they widen the attack surface (opening an EPS file starts Ghostscript).
# HEIF is read if a plugin such as pillow-heif has registered itself.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF", "HEIF", "JPEG2000", "PPM")

# Raised by Pillow and its codecs on damaged files: they check little before they parse.
DAMAGED = (
    OSError,
    EOFError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    AssertionError,
    RuntimeError,
    MemoryError,
    Warning,  # where the process turns warnings into errors
    struct.error,
    zlib.error,
)

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = {_UPRIGHT[orientation] for orientation in (5, 6, 7, 8)}

# Scaled JPEG decoding and the box filter stop at this multiple of the target size: the bicubic
# filter that follows then hides their traces.
_GAP = 2

T = TypeVar("T")
Pixels = npt.NDArray[np.uint8]

Image.init()  # here, because the lazy registration of plugins is not thread-safe


@dataclass(frozen=True)
class ImageLimits:
    """Limits on the pictures to decode; `max_pixels` is width times height."""

    max_pixels: int = 178_956_970


@dataclass(frozen=True)
class DecodedImage:
    """An image ready for a captioner.

    `pixels` is uint8 RGB [H, W, 3]; `width` and `height` are those of the original picture as
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
    """Decode an image file, or the first frame of an animated one, to `size` x `size` pixels.

    The image may be open already, as a picture of PIL. One of that size is not resampled.
    Thread-safe.

    Raises UnreadableImage if the bytes are not an image or a damaged one, and ImageTooLarge, before
    any pixel is decoded, if the picture exceeds the limits.
    """
    return _decode(image, size, limits, lambda rgb: _square(rgb, size))


def decode_fitted(
    image: bytes | Image.Image, side: int, limits: ImageLimits = _DEFAULT_LIMITS
) -> DecodedImage:
    """Decode an image to at most `side` x `side` pixels in its own proportions.

    Otherwise as `decode_image`.
    """
    return _decode(image, side, limits, lambda rgb: np.array(_fitted(rgb, side)))


def shrink_image(data: bytes, side: int, limits: ImageLimits = _DEFAULT_LIMITS) -> Image.Image:
    """Decode an image file to an upright RGB picture of at most `side` x `side` pixels.

    The picture keeps its proportions. Errors are those of `decode_image`.
    """
    return _readable(lambda: _fitted(_upright(data, side, limits).rgb, side))


def _decode(
    image: bytes | Image.Image,
    side: int,
    limits: ImageLimits,
    resized: Callable[[Image.Image], Pixels],
) -> DecodedImage:
    def decoded() -> DecodedImage:
        if isinstance(image, Image.Image):
            upright = _displayed(image)
        else:
            upright = _upright(image, side, limits)
        return DecodedImage(resized(upright.rgb), upright.width, upright.height, upright.format)

    return _readable(decoded)


def _displayed(picture: Image.Image) -> "_Upright":
    picture.load()
    rgb = _turned(_to_rgb(picture), _turn_upright(picture))
    return _Upright(rgb, *rgb.size, picture.format or "unknown")


def _fitted(rgb: Image.Image, side: int) -> Image.Image:
    rgb.thumbnail((side, side), Image.Resampling.LANCZOS)
    return rgb


def _square(rgb: Image.Image, size: int) -> Pixels:
    return np.array(rgb.resize((size, size), Image.Resampling.BICUBIC, reducing_gap=_GAP))


def _readable(decode: Callable[[], T]) -> T:
    try:
        return decode()
    except Image.DecompressionBombError as error:
        raise ImageTooLarge(str(error)) from error
    except DAMAGED as error:
        raise UnreadableImage(_describe(error)) from error


class _Upright(NamedTuple):
    """A picture as displayed, perhaps already reduced, and the size of the original."""

    rgb: Image.Image
    width: int
    height: int
    format: str


def _upright(data: bytes, size: int, limits: ImageLimits) -> _Upright:
    """Decode a picture, to more than `size` pixels if it has more."""
    if not data:
        raise UnreadableImage("empty file")
    picture = _open(data)
    width, height = picture.size
    if width * height > limits.max_pixels:
        raise ImageTooLarge(
            f"{width} x {height} pixels, more than the limit of {limits.max_pixels} in total"
        )
    picture.draft(None, (_GAP * size, _GAP * size))
    picture.load()
    turn = _turn_upright(picture)
    if turn in _SIDEWAYS:
        width, height = height, width
    return _Upright(_turned(_to_rgb(picture), turn), width, height, picture.format or "unknown")


def _open(data: bytes) -> ImageFile.ImageFile:
    """Read the header; unlike Image.open, do not warn about large pictures."""
    for name in FORMATS:
        factory, accepts = Image.OPEN.get(name, (None, None))
        # A plugin without its codec returns a message.
        if factory and accepts and accepts(data[:16]) is True:
            return factory(io.BytesIO(data), "")
    if data[4:8] == b"ftyp":
        raise UnreadableImage("HEIF, AVIF or video: the installed Pillow has no decoder for it")
    raise UnreadableImage("not an image in a known format")


def _turned(picture: Image.Image, turn: Image.Transpose | None) -> Image.Image:
    return picture if turn is None else picture.transpose(turn)


def _turn_upright(picture: Image.Image) -> Image.Transpose | None:
    try:
        return _UPRIGHT.get(picture.getexif().get(ExifTags.Base.Orientation, 1))
    except DAMAGED:
        return None  # the picture is readable without its EXIF data


def _to_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode in ("I", "F") or picture.mode.startswith("I;16"):
        return _to_8_bits(picture).convert("RGB")
    if picture.has_transparency_data:
        canvas = Image.new("RGBA", picture.size, "white")
        canvas.alpha_composite(picture.convert("RGBA"))
        return canvas.convert("RGB")
    return picture.convert("RGB")


def _to_8_bits(picture: Image.Image) -> Image.Image:
    values = np.asarray(picture).astype(np.float32)  # [height, width]
    black, white = _value_range(values, picture.mode)
    scale = 255 / max(white - black, 1e-30)
    scaled = np.nan_to_num(values * scale - black * scale, nan=0, posinf=255, neginf=0)
    return Image.fromarray(np.rint(scaled.clip(0, 255)).astype(np.uint8))


def _value_range(values: npt.NDArray[np.float32], mode: str) -> tuple[float, float]:
    """Return the values of black and white: a customary range if the values fit it, else their own.

    The modes "I" and "F" do not define a range; "I;16" has 16 bits.
    """
    if mode.startswith("I;16"):
        return 0.0, 65535.0
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    for white in (1.0, 255.0, 65535.0):
        if low >= 0 and high <= white:
            return 0.0, white
    return low, high


def _describe(error: BaseException) -> str:
    text = (str(error).splitlines() or [""])[0][:200] or type(error).__name__
    ended_early = (EOFError, IndexError, struct.error)
    truncated = (
        isinstance(error, ended_early)
        or isinstance(error.__cause__, ended_early)
        or "truncated" in text.lower()
    )
    return f"{'truncated' if truncated else 'damaged'}: {text}"
