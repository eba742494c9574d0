"""The size of a picture in the bytes of its file, where opening it already takes its memory."""

import struct

from captioner.errors import UnreadableImage
from captioner.image.formats import signatures

Size = tuple[int, int]
_JXL_RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))


def size_in_header(kind: str, data: bytes) -> Size:
    """Return the size of a picture of a kind that opens whole.

    UnreadableImage if the header has none.
    """
    readers = {signatures.WEBP: _webp, signatures.JXL: _jxl, signatures.ICO: _ico}
    try:
        return readers[kind](data)
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
        width, height = struct.unpack_from(">II", data, place + 16)
        return width, height
    width, height = struct.unpack_from("<ii", data, place + 4)
    return abs(width), abs(height)


def _jxl(data: bytes) -> Size:
    """Return the size in the header of a codestream, which may be in a container."""
    start = 0
    if data[:2] != b"\xff\x0a":
        box = data.find(b"jxlc") + 4
        start = box if box > 3 else data.find(b"jxlp") + 8
        if data[start : start + 2] != b"\xff\x0a":
            raise ValueError("no codestream")
    return _Bits(data[start + 2 : start + 18]).size()


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
