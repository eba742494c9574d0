"""Pictures, and the parts of files that no library would write."""

import io
import random
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image

MARK = b"\x89PNG\r\n\x1a\n"


def scene(chance: random.Random, mode: str = "RGB") -> Image.Image:
    """Return a picture of smooth colours with some noise, of a size by chance."""
    size = chance.randint(3, 90), chance.randint(3, 90)
    noise = np.random.default_rng(chance.getrandbits(32))
    coarse = noise.integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).convert(mode)


def encoded(picture: Image.Image, file_format: str, **options: Any) -> bytes:
    """Return the file of a picture."""
    file = io.BytesIO()
    picture.save(file, file_format, **options)
    return file.getvalue()


def chunk(name: bytes, content: bytes, crc: int | None = None) -> bytes:
    """Return a chunk of a PNG."""
    right = zlib.crc32(name + content)
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", crc or right)


def png(size: tuple[int, int], bits: int, colour: int, packed: bytes, extra: bytes = b"") -> bytes:
    """Return a PNG with a header of these values, and any data."""
    head = struct.pack(">IIBBBBB", *size, bits, colour, 0, 0, 0)
    parts = (chunk(b"IHDR", head), extra, chunk(b"IDAT", packed), chunk(b"IEND", b""))
    return MARK + b"".join(parts)


def with_chunk(file: bytes, extra: bytes) -> bytes:
    """Return a PNG with another chunk after its header."""
    return file[:33] + extra + file[33:]


def tiff(tags: dict[int, int], data: bytes) -> bytes:
    """Return a little-endian TIFF of one strip, with these tags of one number each."""
    strip = {273: 8, 279: len(data)}
    entries = [
        struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted((strip | tags).items())
    ]
    table = struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4)
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + table


def grey_tiff(values: np.ndarray[Any, Any], sample_format: int, **tags: int) -> bytes:
    """Return a TIFF of grey values; `tags` are photometric, compression or subfile."""
    height, width = values.shape
    numbers = {"photometric": 262, "compression": 259, "subfile": 254}
    given = {numbers[name]: value for name, value in tags.items()}
    raw = values.astype(values.dtype.newbyteorder("<")).tobytes()
    data = zlib.compress(raw) if tags.get("compression") == 8 else raw
    bits = 8 * values.dtype.itemsize
    known = {256: width, 257: height, 258: bits, 259: 1, 262: 1, 277: 1, 278: height}
    return tiff(known | {339: sample_format} | given, data)


def ico(picture: bytes, side: int = 0) -> bytes:
    """Return an icon file with one picture."""
    entry = struct.pack("<BBBBHHII", side, side, 0, 0, 1, 32, len(picture), 22)
    return b"\0\0\1\0\1\0" + entry + picture


def webp(chunks: bytes) -> bytes:
    """Return a WebP file of these chunks."""
    return b"RIFF" + struct.pack("<I", len(chunks) + 4) + b"WEBP" + chunks


def vp8l(width: int, height: int) -> bytes:
    """Return a WebP of 34 bytes: a flat picture of any size."""
    bits = (width - 1) | (height - 1) << 14
    content = b"\x2f" + struct.pack("<I", bits) + b"\x07\x10\x11\x11\x88\x88\xfe\x07\0"
    return webp(b"VP8L" + struct.pack("<I", len(content)) + content)
