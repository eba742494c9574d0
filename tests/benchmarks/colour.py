"""Compare decoded pixels with those of ImageMagick: profiles, formats, depths, orientations.

Each case is a file, made here. ImageMagick converts it to sRGB by its own reading of the file; the
table has the mean difference, in levels of 256. Without `convert` there is nothing to compare with.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageCms

from captioner.image import decode_image

sys.path.insert(0, str(Path(__file__).parent.parent.parent))
from tests.support import icc_profiles
from tests.support.hostile_files.parts import chunk, encoded, grey_tiff, with_chunk

SIDE = 224
GOAL = 1.0  # levels of 256
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
PROFILES = {
    "none": None,
    "sRGB": SRGB,
    "Adobe RGB": icc_profiles.gamma_profile(icc_profiles.ADOBE, 2.2),
    "Display P3": icc_profiles.srgb_curve_profile(icc_profiles.P3),
    "ProPhoto": icc_profiles.gamma_profile(icc_profiles.PROPHOTO, 1.8),
    "BT.2020": icc_profiles.gamma_profile(icc_profiles.BT2020, 2.4),
    "linear": icc_profiles.gamma_profile(icc_profiles.SRGB, 1.0),
}
FORMATS: Mapping[str, Mapping[str, Any]] = {
    "PNG": {},
    "TIFF": {"compression": "tiff_lzw"},
    "JPEG": {"quality": 95},
    "WEBP": {"lossless": True},
}
Pixels = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Case:
    """A file, and what ImageMagick does with it between reading and writing.

    It does not know all that files may say: then it is given `steps`, or the `same` picture.
    """

    name: str
    suffix: str
    data: bytes
    steps: tuple[str, ...] = ()
    same: bytes | None = None  # a file that it reads instead, of the same picture


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--worst", type=int, default=5, help="cases to name at the end")
    options = parser.parse_args()
    if not shutil.which("convert"):
        print("skipped: ImageMagick is not installed (apt-get install imagemagick)")
        return 0
    errors = {}
    with tempfile.TemporaryDirectory() as folder:
        for case in cases():
            errors[case.name] = difference(case, Path(folder))
            print(f"{case.name:44} {errors[case.name]:6.2f}", flush=True)
    worst = sorted(errors, key=lambda name: -errors[name])[: options.worst]
    beyond = sum(error > GOAL for error in errors.values())
    print(f"\n{len(errors)} cases, {beyond} beyond {GOAL} of 256 levels; the worst:")
    for name in worst:
        print(f"  {name:42} {errors[name]:6.2f}")
    return 1 if beyond else 0


def difference(case: Case, folder: Path) -> float:
    """Return the mean difference of a case, of 256 levels."""
    decoded = decode_image(case.data, SIDE).pixels.astype(float)
    return float(np.abs(decoded - reference(case, folder)).mean())


def reference(case: Case, folder: Path) -> Pixels:
    """Return the pixels of ImageMagick: upright, in sRGB, on white, squeezed into a square."""
    file, srgb = folder / f"case{case.suffix}", folder / "srgb.icc"
    file.write_bytes(case.same or case.data)
    srgb.write_bytes(SRGB)
    steps = case.steps or ("-profile", str(srgb))
    size = f"{SIDE}x{SIDE}!"
    first = ("convert", f"{file}[0]", "-auto-orient", "+repage")
    flat = ("-background", "white", "-flatten", "-filter", "Catrom", "-resize", size)
    command = (*first, *steps, *flat, "-depth", "8", "rgb:-")
    raw = subprocess.run(command, check=True, capture_output=True).stdout
    return np.frombuffer(raw, dtype=np.uint8).reshape(SIDE, SIDE, 3).astype(float)


def cases() -> Iterator[Case]:
    """Yield the cases: at least 60."""
    yield from profile_cases()
    yield from mode_cases()
    yield from depth_cases()
    yield from chunk_cases()
    yield from orientation_cases()


def picture(width: int = 640, height: int = 480) -> Image.Image:
    """Return smooth colours with texture, as in a photograph, none of them fully saturated."""
    down, across = np.mgrid[0:height, 0:width]
    waves = [np.sin(across / (37 + 11 * k) + k) * np.cos(down / (29 + 7 * k)) for k in range(3)]
    texture = np.random.default_rng(0).normal(0, 6, (height, width, 1))
    values = 128 + 70 * np.stack(waves, axis=-1) + texture
    return Image.fromarray(values.clip(25, 230).astype(np.uint8))


def profile_cases() -> Iterator[Case]:
    for name, profile in PROFILES.items():
        for file_format, options in FORMATS.items():
            data = encoded(picture(), file_format, icc_profile=profile, **options)
            yield Case(f"{name}, {file_format}", f".{file_format.lower()}", data)


def mode_cases() -> Iterator[Case]:
    grey, inks = icc_profiles.grey_profile(1.8), icc_profiles.cmyk_profile()
    for file_format in ("PNG", "TIFF", "JPEG"):
        suffix = f".{file_format.lower()}"
        for name, profile in (("grey", None), ("grey by profile", grey)):
            data = encoded(picture().convert("L"), file_format, icc_profile=profile)
            yield Case(f"{name}, {file_format}", suffix, data)
    for file_format in ("TIFF", "JPEG"):
        options = {"quality": 95} if file_format == "JPEG" else {}
        data = encoded(picture().convert("CMYK"), file_format, icc_profile=inks, **options)
        yield Case(f"CMYK by profile, {file_format}", f".{file_format.lower()}", data)
    for name in ("none", "Adobe RGB", "Display P3"):
        profile = PROFILES[name]
        palette = encoded(picture().quantize(200), "PNG", icc_profile=profile)
        yield Case(f"palette, {name}, PNG", ".png", palette)
        clear = picture().convert("RGBA")
        clear.putalpha(Image.linear_gradient("L").resize(clear.size))
        yield Case(f"alpha, {name}, PNG", ".png", encoded(clear, "PNG", icc_profile=profile))
    lab = ImageCms.profileToProfile(
        picture(), ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    assert lab is not None
    yield Case("Lab, TIFF", ".tiff", encoded(lab, "TIFF"), same=encoded(picture(), "TIFF"))


def depth_cases() -> Iterator[Case]:
    values = np.asarray(picture().convert("L")) / 255
    deep = np.rint(65535 * values).astype(np.uint16)
    for file_format in ("PNG", "TIFF"):
        suffix = f".{file_format.lower()}"
        yield Case(f"16 bits, {file_format}", suffix, encoded(Image.fromarray(deep), file_format))
        profile = icc_profiles.grey_profile(1.8)
        data = encoded(Image.fromarray(deep), file_format, icc_profile=profile)
        yield Case(f"16 bits by profile, {file_format}", suffix, data)
    yield Case("16 bits, white is zero, TIFF", ".tiff", grey_tiff(65535 - deep, 1, photometric=0))
    yield Case("floating point, TIFF", ".tiff", grey_tiff(values.astype(np.float32), 3))
    whole = np.rint((2**32 - 1) * values).astype(np.uint32)
    yield Case("32 bits, TIFF", ".tiff", grey_tiff(whole, 1))
    yield Case("1 bit, PNG", ".png", encoded(picture().convert("1"), "PNG"))


def chunk_cases() -> Iterator[Case]:
    """Yield PNG files whose chunks name their colours; ImageMagick is told what they mean."""
    plain = encoded(picture(), "PNG")
    for exponent in (0.35, 0.6, 1.0):
        gamma = chunk(b"gAMA", round(100_000 * exponent).to_bytes(4, "big"))
        light = ("-strip", "-set", "gamma", "0.45455", "-set", "colorspace", "RGB")
        power = ("-evaluate", "pow", str(1 / exponent), "-colorspace", "sRGB")
        yield Case(f"gAMA {exponent}, PNG", ".png", with_chunk(plain, gamma), light + power)
    for name, codes in (("sRGB", (1, 13)), ("Display P3", (12, 13))):
        data = with_chunk(plain, chunk(b"cICP", bytes([*codes, 0, 1])))
        yield Case(f"cICP {name}, PNG", ".png", data, assigned(PROFILES[name]))


def assigned(profile: bytes | None) -> tuple[str, ...]:
    """Return steps that take a picture for one with this profile, and convert it to sRGB."""
    folder = Path(tempfile.gettempdir())
    names = [folder / "captioner-from.icc", folder / "captioner-srgb.icc"]
    for path, content in zip(names, (profile or SRGB, SRGB), strict=True):
        path.write_bytes(content)
    return ("-strip", "-profile", str(names[0]), "-profile", str(names[1]))


def orientation_cases() -> Iterator[Case]:
    for file_format in ("JPEG", "PNG", "TIFF"):
        for orientation in (2, 3, 5, 6, 8):
            exif = Image.Exif()
            exif[ExifTags.Base.Orientation] = orientation
            data = encoded(picture(), file_format, exif=exif, **FORMATS[file_format])
            tiff = encoded(picture(), "TIFF", exif=exif) if file_format == "PNG" else None
            name = f"orientation {orientation}, {file_format}"
            yield Case(name, ".tiff" if tiff else f".{file_format.lower()}", data, same=tiff)


if __name__ == "__main__":
    sys.exit(main())
