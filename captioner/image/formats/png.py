"""PNG files: only the chunks that make the picture, with what they say about colours.

Pillow checks every chunk, and gives up on a damaged comment. The chunks that are kept get a new
checksum: what a damaged one holds is seen when it is decoded.
"""

import struct
import zlib
from collections.abc import Iterator, Mapping

from captioner.image.colour.codes import Primaries, profile_of_codes, profile_of_gamma

SIGNATURE = b"\x89PNG\r\n\x1a\n"
# The picture, its frames, and Pillow's sources of an orientation.
_KEPT = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"acTL", b"fcTL", b"fdAT", b"iCCP", b"eXIf")
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_ORIENTING = (b"Raw profile type exif\0", b"XML:com.adobe.xmp\0")
_COLOURS = (b"cICP", b"sRGB", b"gAMA", b"cHRM")
_AT_MOST = 1 << 20  # bytes of a chunk that is no picture, also unpacked
_NEAR_SRGB = range(43_200, 47_800)  # gAMA within 5% of 1/2.2, which writers give for sRGB

Chunk = tuple[bytes, bytes]


def picture_chunks(data: bytes) -> tuple[bytes, dict[bytes, bytes]]:
    """Return a PNG file with the chunks of the picture alone, and those about its colours."""
    kept = [SIGNATURE]
    colours: dict[bytes, bytes] = {}
    for name, content in _chunks(data):
        if name in _COLOURS:
            colours.setdefault(name, content)
        elif _is_kept(name, content):
            crc = zlib.crc32(content, zlib.crc32(name))
            kept += [struct.pack(">I", len(content)), name, content, struct.pack(">I", crc)]
    kept.append(b"\0\0\0\0IEND\xaeB`\x82")
    return b"".join(kept), colours


def _chunks(data: bytes) -> Iterator[Chunk]:
    """Yield the chunks; the last one may be shorter than it says."""
    place = len(SIGNATURE)
    while place + 8 <= len(data):
        size, name = struct.unpack_from(">I4s", data, place)
        if name == b"IEND":
            return
        yield name, data[place + 8 : place + 8 + size]
        place += 12 + size


def _is_kept(name: bytes, content: bytes) -> bool:
    if name in (b"iCCP", b"eXIf"):
        return len(content) <= _AT_MOST and (name == b"eXIf" or _is_small(content))
    if name in _TEXTS:
        orients = content.startswith(_ORIENTING) and len(content) <= _AT_MOST
        return orients and (name == b"tEXt" or _is_small(content))
    return name in _KEPT


def _is_small(content: bytes) -> bool:
    """Return whether what follows a keyword, packed perhaps, is sound and not too large."""
    packed = content.partition(b"\0")[2][1:]
    if content.startswith(_ORIENTING[1]):  # of iTXt, which has more before its text
        packed = packed[1:].partition(b"\0")[2].partition(b"\0")[2]
        if content[len(_ORIENTING[1]) : len(_ORIENTING[1]) + 1] == b"\0":
            return True
    unpacker = zlib.decompressobj()
    try:
        unpacker.decompress(packed, _AT_MOST)
    except zlib.error:
        return False
    return not unpacker.unconsumed_tail


def chunk_profile(colours: Mapping[bytes, bytes], embedded: bytes | None) -> bytes | None:
    """Return the profile that the chunks of a PNG stand for; None for sRGB.

    `embedded` is the profile in the file, which only cICP outranks.
    """
    codes = colours.get(b"cICP", b"")
    if len(codes) == 4:
        return profile_of_codes(codes[0], codes[1])
    if embedded or b"sRGB" in colours:
        return embedded
    gamma = _numbers(colours.get(b"gAMA", b""), 1)
    chromaticities = _numbers(colours.get(b"cHRM", b""), 8)
    exponent = None
    if gamma and gamma[0] not in _NEAR_SRGB and 1_000 < gamma[0] < 1_000_000:
        exponent = 100_000 / gamma[0]
    primaries = Primaries(*(value / 100_000 for value in chromaticities or ()))
    return profile_of_gamma(exponent, primaries)


def _numbers(content: bytes, count: int) -> tuple[int, ...] | None:
    return struct.unpack(f">{count}I", content) if len(content) == 4 * count else None
