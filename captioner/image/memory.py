"""How many bytes it takes to decode a picture, and room for them, before it is decoded."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from PIL import Image, TiffImagePlugin

from captioner.allocator import return_freed_memory
from captioner.errors import ImageTooLarge
from captioner.image.depth import is_deep
from captioner.image.formats.av1 import coded_pixels
from captioner.image.formats.gif import frame_places
from captioner.image.formats.jpeg import coefficient_bytes

MAX_PIXELS = 178_956_970  # of a picture that is decoded whole: 0.7 GB as RGB
BUDGET = 1 << 30  # bytes, for all threads of a process
_LARGE = 64 << 20  # bytes; they seldom fit into what smaller pictures have left
_BESIDE = 8 << 20  # bytes, of anything

# What decoders hold beside the finished picture, in bytes a pixel; measured.
_DECODER = {"WEBP": 15, "AVIF": 12, "HEIF": 12, "JXL": 16, "JPEG2000": 18, "ICO": 10, "RAW": 24}
_BYTES = {"1": 1, "L": 1, "P": 1}  # of a pixel in Pillow; 2 with 16 bits, 4 of other modes
_ANIMATION = 12  # canvas, frame before it and frame
_STRIP_TAGS, _UNCOMPRESSED = (278, 323), 1  # rows of a strip, or of a tile


@dataclass(frozen=True)
class ImageLimits:
    """Limits on the pictures to decode; `max_pixels` is width times height.

    Without it, MAX_PIXELS holds for pictures that are decoded whole. A JPEG is decoded to a
    fraction of its size, so that its memory is what limits it.
    """

    max_pixels: int | None = None

    def check(self, kind: str, size: tuple[int, int]) -> None:
        """Raise ImageTooLarge for a picture of this kind and size if it is beyond the limits."""
        limit = self.max_pixels
        if limit is None:
            limit = None if kind == "JPEG" else MAX_PIXELS
        width, height = size
        if limit is not None and width * height > limit:
            raise ImageTooLarge(
                f"{width} x {height} pixels, more than the limit of {limit:,} in total"
            )


class ByteBudget:
    """Bytes that threads share; while one waits for its bytes, no other takes any."""

    def __init__(self, total: int) -> None:
        self.total = total
        self._free = total
        self._turn = threading.Lock()
        self._returned = threading.Condition()

    @contextmanager
    def taken(self, count: int) -> Iterator[None]:
        """Take bytes from the budget, as soon as it has them. ImageTooLarge if it never will."""
        if count > self.total:
            raise ImageTooLarge(
                f"{count >> 20} MiB of memory to decode it, more than the limit of "
                f"{self.total >> 20} MiB"
            )
        with self._turn, self._returned:
            while self._free < count:
                self._returned.wait()
            self._free -= count
        if count > _LARGE:
            return_freed_memory()
        try:
            yield
        finally:
            with self._returned:
                self._free += count
                self._returned.notify()


DECODING = ByteBudget(BUDGET)


def bytes_before_opening(kind: str, size: tuple[int, int], data: bytes) -> int:
    """Return the bytes that it takes to open and decode a picture of a kind that opens whole."""
    each = _gif_bytes(data) if kind == "GIF" else 4 + _DECODER[kind]
    return _BESIDE + size[0] * size[1] * each


def _gif_bytes(data: bytes) -> int:
    """Return the bytes for each pixel of a GIF; its first frame also has what it leaves behind."""
    return 2 + (_ANIMATION if len(frame_places(data)) > 1 else 0)


def bytes_to_decode(kind: str, picture: Image.Image, size: tuple[int, int], data: bytes) -> int:
    """Return the bytes that it takes to decode an open picture, drafted if it can be.

    `size` is that of the original.
    """
    pixels = max(picture.width * picture.height, coded_pixels(data) if kind == "AVIF" else 0)
    each = _bytes_of_mode(picture.mode) + _DECODER.get(kind, 0)
    if getattr(picture, "is_animated", False) and kind == "PNG":
        each += _ANIMATION
    return (
        _BESIDE + pixels * each + _strip_bytes(picture) + _coefficients(kind, picture, size, data)
    )


def _bytes_of_mode(mode: str) -> int:
    return 2 if mode.startswith("I;16") else _BYTES.get(mode, 4)


def _coefficients(kind: str, picture: Image.Image, size: tuple[int, int], data: bytes) -> int:
    return coefficient_bytes(picture, size, data) if kind == "JPEG" else 0


def _strip_bytes(picture: Image.Image) -> int:
    """Return the bytes of a strip or tile of a compressed TIFF, which is unpacked as a whole."""
    if not isinstance(picture, TiffImagePlugin.TiffImageFile):
        return 0
    tags = picture.tag_v2
    if tags.get(259, _UNCOMPRESSED) == _UNCOMPRESSED:
        return 0
    rows = [tags[tag] for tag in _STRIP_TAGS if isinstance(tags.get(tag), int)]
    width = tags.get(322, picture.width)
    each = max(_bytes_of_mode(picture.mode), 3) if not is_deep(picture.mode) else 4
    height = min(rows[0] if rows else picture.height, picture.height)
    return height * max(picture.width, width if isinstance(width, int) else 0) * each
