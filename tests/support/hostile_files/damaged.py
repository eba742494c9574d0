"""Damaged files: cut, with wrong bytes, or with parts that are no part of the picture."""

import random
import zlib
from collections.abc import Callable, Mapping
from functools import partial

from tests.support.hostile_files.parts import chunk, encoded, png, scene, with_chunk

Make = Callable[[random.Random], bytes]


def _cut(file_format: str, chance: random.Random) -> bytes:
    data = encoded(scene(chance), file_format)
    return data[: chance.randrange(1, len(data))]


def _no_end(chance: random.Random) -> bytes:
    return encoded(scene(chance), "JPEG", progressive=chance.random() < 0.5)[
        : -chance.randint(1, 4)
    ]


def _flipped(file_format: str, chance: random.Random) -> bytes:
    data = bytearray(encoded(scene(chance), file_format))
    for _ in range(chance.randint(1, 12)):
        data[chance.randrange(len(data))] = chance.randrange(256)
    return bytes(data)


def _wrong_sums(chance: random.Random) -> bytes:
    return with_chunk(encoded(scene(chance), "PNG"), chunk(b"tEXt", b"Comment\0x", crc=1))


def _short(name: bytes, chance: random.Random) -> bytes:
    content = chance.randbytes(chance.randint(0, 6))
    return with_chunk(encoded(scene(chance), "PNG"), chunk(name, content))


def _broken_profile(chance: random.Random) -> bytes:
    profile = chance.randbytes(chance.randint(1, 400))
    return encoded(scene(chance), chance.choice(["JPEG", "PNG", "WEBP"]), icc_profile=profile)


def _broken_exif(chance: random.Random) -> bytes:
    return encoded(scene(chance), "JPEG", exif=b"Exif\0\0" + chance.randbytes(40))


def _missing_rows(chance: random.Random) -> bytes:
    return png((40, 40), 8, 2, zlib.compress(bytes(121 * chance.randint(0, 39))))


def _wrong_header(chance: random.Random) -> bytes:
    return png(
        (9, 9), chance.choice([3, 7, 64]), chance.choice([1, 5, 9]), zlib.compress(bytes(999))
    )


def _rubbish_after(chance: random.Random) -> bytes:
    file_format = chance.choice(["JPEG", "PNG", "GIF", "WEBP"])
    return encoded(scene(chance), file_format) + chance.randbytes(500)


FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP")
DAMAGED: Mapping[str, Make] = {
    **{f"cut {each.lower()}": partial(_cut, each) for each in FORMATS},
    **{f"flipped {each.lower()}": partial(_flipped, each) for each in FORMATS},
    "jpeg without an end": _no_end,
    "png with a wrong checksum": _wrong_sums,
    "png with a short chrm": partial(_short, b"cHRM"),
    "png with a short trns": partial(_short, b"tRNS"),
    "png with a short exif": partial(_short, b"eXIf"),
    "png with missing rows": _missing_rows,
    "png with a wrong header": _wrong_header,
    "broken profile": _broken_profile,
    "broken exif": _broken_exif,
    "rubbish after the end": _rubbish_after,
}
