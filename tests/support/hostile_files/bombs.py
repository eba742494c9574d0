"""Small files that would take much memory."""

import random
import struct
import zlib
from collections.abc import Callable, Mapping

from tests.support.hostile_files.parts import (
    chunk,
    encoded,
    ico,
    png,
    scene,
    tiff,
    vp8l,
    webp,
    with_chunk,
)

Make = Callable[[random.Random], bytes]
_ZEROS = zlib.compress(bytes(40_000_000), 9)


def _size(chance: random.Random) -> tuple[int, int]:
    return chance.randint(12_000, 16_383), chance.randint(9_000, 16_383)


def _bomb_text(chance: random.Random) -> bytes:
    name = chance.choice([b"zTXt", b"iCCP"])
    return with_chunk(encoded(scene(chance), "PNG"), chunk(name, b"Comment\0\0" + _ZEROS))


def _canvas(chance: random.Random) -> bytes:
    width, height = (side.to_bytes(3, "little") for side in _size(chance))
    head = b"VP8X" + struct.pack("<I", 10) + b"\x10\0\0\0" + width + height
    return webp(head + vp8l(9, 9)[12:])


def _float_tiff(chance: random.Random) -> bytes:
    width, height = _size(chance)
    tags = {256: width, 257: height, 258: 32, 259: 8, 262: 1, 277: 1, 278: height, 339: 3}
    return tiff(tags, _ZEROS)


def _bitmap(chance: random.Random) -> bytes:
    width, height = _size(chance)
    head = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, *[0] * 6)
    return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + head


def _gif(chance: random.Random) -> bytes:
    size = struct.pack("<HH", *_size(chance))
    frame = b"," + bytes(4) + size + b"\0\x02\x02\x4c\x01\0;"
    return b"GIF89a" + size + b"\x80\0\0" + bytes(6) + frame


def _codestream(chance: random.Random) -> bytes:
    sizes = struct.pack(">8I", *_size(chance), 0, 0, *_size(chance), 0, 0)
    return b"\xff\x4f\xff\x51\0\x2f\0\0" + sizes + b"\0\3" + b"\x07\1\1" * 3 + b"\xff\xd9"


BOMBS: Mapping[str, Make] = {
    "webp of 34 bytes": lambda chance: vp8l(*_size(chance)),
    "webp canvas": _canvas,
    "png bomb": lambda chance: png(_size(chance), 8, 6, _ZEROS),
    "one bit png bomb": lambda chance: png((40_000, 4_000), 1, 0, _ZEROS),
    "png text bomb": _bomb_text,
    "float tiff bomb": _float_tiff,
    "icon bomb": lambda chance: ico(png(_size(chance), 8, 6, _ZEROS)),
    "bmp header": _bitmap,
    "gif header": _gif,
    "netpbm header": lambda chance: b"P6 %d %d 255\n" % _size(chance),
    "jpeg 2000 header": _codestream,
}
