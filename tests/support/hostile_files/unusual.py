"""Sound files of unusual kinds: every viewer shows them."""

import random
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageCms

from tests.support.hostile_files.parts import chunk, encoded, grey_tiff, ico, scene, with_chunk

Make = Callable[[random.Random], bytes]


def _of_mode(mode: str, file_format: str, chance: random.Random, **options: Any) -> bytes:
    return encoded(scene(chance, mode), file_format, **options)


def _oriented(file_format: str, chance: random.Random) -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = chance.randint(0, 9)
    return encoded(scene(chance), file_format, exif=exif)


def _animated(file_format: str, chance: random.Random) -> bytes:
    first = scene(chance)
    others = [scene(chance).resize(first.size) for _ in range(chance.randint(1, 4))]
    return encoded(first, file_format, save_all=True, append_images=others)


def _blank_first(file_format: str, chance: random.Random) -> bytes:
    frame = scene(chance)
    blank = Image.new("RGB", frame.size, "white")
    return encoded(blank, file_format, save_all=True, append_images=[frame])


def _transparent(chance: random.Random) -> bytes:
    return encoded(scene(chance).quantize(chance.randint(2, 200)), "PNG", transparency=1)


def _with_profile(file_format: str, chance: random.Random) -> bytes:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return encoded(scene(chance), file_format, icc_profile=profile)


def _values(chance: random.Random, dtype: str, low: float, high: float) -> Any:
    noise = np.random.default_rng(chance.getrandbits(32))
    return noise.uniform(low, high, (chance.randint(2, 40), chance.randint(2, 40))).astype(dtype)


def _one_bright(chance: random.Random) -> bytes:
    values = _values(chance, "float32", 0, 1)
    values[0, 0] = chance.choice([1.001, 300, 1e30, np.inf, np.nan])
    return grey_tiff(values, 3)


def _thumbnail_first(chance: random.Random) -> bytes:
    picture, small = scene(chance), Image.new("RGB", (2, 2))
    pages = {"save_all": True, "append_images": [picture]}
    return encoded(small, "TIFF", tiffinfo={254: 1}, **pages)


def _codes(chance: random.Random) -> bytes:
    codes = bytes([chance.randint(0, 24), chance.randint(0, 20), 0, 1])
    return with_chunk(_of_mode("RGB", "PNG", chance), chunk(b"cICP", codes))


def _gamma(chance: random.Random) -> bytes:
    gamma = chance.choice([0, 1, 45_455, 100_000, 2**31]).to_bytes(4, "big")
    return with_chunk(_of_mode("RGB", "PNG", chance), chunk(b"gAMA", gamma))


def _icon(chance: random.Random) -> bytes:
    return ico(_of_mode("RGBA", "PNG", chance), chance.randint(0, 255))


def _float(chance: random.Random) -> bytes:
    return grey_tiff(_values(chance, "float32", -1, chance.choice([1, 300, 1e30])), 3)


def _unsigned(chance: random.Random) -> bytes:
    return grey_tiff(_values(chance, "uint32", 0, 2**32 - 1), 1, compression=8)


def _negative(chance: random.Random) -> bytes:
    return grey_tiff(_values(chance, "uint16", 0, 65535), 1, photometric=0)


def _double(chance: random.Random) -> bytes:
    return grey_tiff(_values(chance, "float64", 0, 1), 3)


def _tiny(chance: random.Random) -> bytes:
    return encoded(Image.new("RGB", (1, chance.choice([1, 5000]))), chance.choice(["PNG", "JPEG"]))


def _interlaced(chance: random.Random) -> bytes:
    return encoded(scene(chance), "GIF", interlace=1)


def _sixteen(chance: random.Random) -> bytes:
    return encoded(Image.fromarray(_values(chance, "uint16", 0, 65535)), "PNG")


UNUSUAL: Mapping[str, Make] = {
    "progressive jpeg": partial(_of_mode, "RGB", "JPEG", progressive=True),
    "cmyk jpeg": partial(_of_mode, "CMYK", "JPEG"),
    "grey jpeg": partial(_of_mode, "L", "JPEG"),
    "cmyk tiff": partial(_of_mode, "CMYK", "TIFF"),
    "ycbcr tiff": partial(_of_mode, "YCbCr", "TIFF"),
    "palette png": lambda chance: encoded(scene(chance).quantize(chance.randint(2, 256)), "PNG"),
    "transparent palette png": _transparent,
    "grey and alpha png": partial(_of_mode, "LA", "PNG"),
    "alpha webp": partial(_of_mode, "RGBA", "WEBP"),
    "one bit png": partial(_of_mode, "1", "PNG"),
    "one bit tiff": partial(_of_mode, "1", "TIFF", compression="group4"),
    "16-bit png": _sixteen,
    "oriented jpeg": partial(_oriented, "JPEG"),
    "oriented png": partial(_oriented, "PNG"),
    "oriented webp": partial(_oriented, "WEBP"),
    "animated gif": partial(_animated, "GIF"),
    "animated png": partial(_animated, "PNG"),
    "animated webp": partial(_animated, "WEBP"),
    "blank first gif": partial(_blank_first, "GIF"),
    "blank first png": partial(_blank_first, "PNG"),
    "interlaced gif": _interlaced,
    "profile jpeg": partial(_with_profile, "JPEG"),
    "profile png": partial(_with_profile, "PNG"),
    "profile tiff": partial(_with_profile, "TIFF"),
    "cicp png": _codes,
    "gama png": _gamma,
    "float tiff": _float,
    "float tiff with one bright pixel": _one_bright,
    "double tiff": _double,
    "uint32 tiff": _unsigned,
    "white is zero tiff": _negative,
    "thumbnail first tiff": _thumbnail_first,
    "icon": _icon,
    "targa": partial(_of_mode, "RGBA", "TGA", compression="tga_rle"),
    "jpeg 2000": partial(_of_mode, "RGB", "JPEG2000"),
    "bmp": partial(_of_mode, "P", "BMP"),
    "netpbm": partial(_of_mode, "RGB", "PPM"),
    "tiny or narrow": _tiny,
}
