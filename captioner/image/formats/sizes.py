"""The size of a picture in the bytes of its file, where opening it already takes its memory."""

import struct
from collections.abc import Iterator
from itertools import islice

from captioner.errors import UnreadableImage
from captioner.image.formats import signatures
from captioner.image.formats.boxes import boxes
from captioner.image.formats.gif import gif_size

Size = tuple[int, int]
_OS2_HEADER = 12  # bytes of the header of a bitmap with sides of 16 bits
_JXL_START, _JXL_HEADER = b"\xff\x0a", 18  # bytes of the codestream that have the size
_BOXES = 10_000  # that are looked at
_JXL_PARTS = {b"jxlc": 0, b"jxlp": 4}  # boxes with codestream, and the bytes before it
_JXL_RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))


def size_in_header(kind: str, data: bytes) -> Size:
    """Return the size of a picture of a kind that opens whole.

    UnreadableImage if the header has none.
    """
    try:
        return _READERS[kind](data)
    except (struct.error, IndexError, ValueError) as error:
        raise UnreadableImage("truncated: the header has no size") from error


def _webp(data: bytes) -> Size:
    chunk = data[12:16]
    if chunk == b"VP8X":
        width, height = (int.from_bytes(data[at : at + 3], "little") for at in (24, 27))
        return width + 1, height + 1
    if chunk == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    width, height = struct.unpack_from("<HH", data, 26)
    return width & 0x3FFF, height & 0x3FFF


def _ico(data: bytes) -> Size:
    """Return the largest width and height of the icons in a file."""
    (count,) = struct.unpack_from("<H", data, 4)
    places = [struct.unpack_from("<I", data, 18 + 16 * number)[0] for number in range(count)]
    sizes = [_icon(data, place) for place in places]
    return max(width for width, _ in sizes), max(height for _, height in sizes)


def _icon(data: bytes, place: int) -> Size:
    if data[place : place + 8] == b"\x89PNG\r\n\x1a\n":
        if data[place + 12 : place + 16] != b"IHDR":
            raise ValueError("another chunk comes first")
        width, height = struct.unpack_from(">II", data, place + 16)
        return width, height
    (header,) = struct.unpack_from("<I", data, place)
    sides = "<HH" if header == _OS2_HEADER else "<ii"
    width, height = struct.unpack_from(sides, data, place + 4)
    return abs(width), abs(height)


def _jxl(data: bytes) -> Size:
    """Return the size in the header of a codestream, which may be in the boxes of a container."""
    start = data[:_JXL_HEADER]
    if not start.startswith(_JXL_START):
        start = b"".join(islice(_codestream(data), _JXL_HEADER))
    if not start.startswith(_JXL_START):
        raise ValueError("no codestream")
    return _Bits(start[len(_JXL_START) : _JXL_HEADER]).size()


def _codestream(data: bytes) -> Iterator[bytes]:
    """Yield the beginnings of the parts of a codestream in a container, none of them empty."""
    for kind, first, end in islice(boxes(data), _BOXES):
        if kind in _JXL_PARTS:
            first += _JXL_PARTS[kind]
            if part := data[first : min(end, first + _JXL_HEADER)]:
                yield part


class _Bits:
    """The bits of a header of JPEG XL, the lowest first."""

    def __init__(self, data: bytes) -> None:
        self._bits = int.from_bytes(data, "little")

    def size(self) -> Size:
        """Return the size that the header begins with."""
        is_small = self._take(1) == 1
        height = self._side(is_small)
        ratio = self._take(3)
        if ratio == 0:
            return self._side(is_small), height
        across, down = _JXL_RATIOS[ratio - 1]
        return height * across // down, height

    def _side(self, is_small: bool) -> int:
        if is_small:
            return 8 * (self._take(5) + 1)
        return self._take((9, 13, 18, 30)[self._take(2)]) + 1

    def _take(self, count: int) -> int:
        value = self._bits & ((1 << count) - 1)
        self._bits >>= count
        return value


_READERS = {
    signatures.WEBP: _webp,
    signatures.JXL: _jxl,
    signatures.ICO: _ico,
    signatures.GIF: gif_size,
}
