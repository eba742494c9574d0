"""Colours: what a viewer with colour management shows, in sRGB."""

import io
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageCms

from captioner.image import decode_image
from captioner.image.colour.codes import Primaries
from captioner.image.colour.transform import transform_to_srgb
from tests.support import icc_profiles
from tests.support.hostile_files.parts import chunk, encoded, with_chunk

SIZE = 32


def picture() -> Image.Image:
    """Return smooth colours that are not too saturated."""
    across, down = np.meshgrid(np.linspace(0, 1, SIZE), np.linspace(0, 1, SIZE))
    channels = (90 + 110 * across, 100 + 90 * down, 160 - 80 * across * down)
    return Image.fromarray(np.stack(channels, axis=-1).astype(np.uint8))


def error(data: bytes, expected: npt.NDArray[np.float64]) -> float:
    return float(np.abs(decode_image(data, SIZE).pixels - expected).mean())


PROFILES = {
    "adobe": (icc_profiles.ADOBE, 2.2),
    "p3": (icc_profiles.P3, None),
    "bt2020": (icc_profiles.BT2020, 2.4),
    "linear": (icc_profiles.SRGB, 1.0),
}


@pytest.mark.parametrize("name", PROFILES)
@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP", "TIFF", "AVIF"])
def test_colours_are_converted_by_their_profile(file_format: str, name: str) -> None:
    primaries, gamma = PROFILES[name]
    profile = (
        icc_profiles.gamma_profile(primaries, gamma)
        if gamma
        else icc_profiles.srgb_curve_profile(primaries)
    )
    lossy = {"quality": 100, "subsampling": "4:4:4"} if file_format in ("JPEG", "AVIF") else {}
    lossless = {"lossless": True} if file_format == "WEBP" else {}
    data = encoded(picture(), file_format, icc_profile=profile, **lossy, **lossless)
    expected = icc_profiles.to_srgb(np.asarray(picture()), primaries, gamma)
    assert np.abs(expected - np.asarray(picture())).mean() > 2  # the profile matters
    assert error(data, expected) < (1 if file_format in ("PNG", "TIFF", "WEBP") else 1.6)


def test_sixteen_bits_are_converted_by_their_profile() -> None:
    grey = np.tile(np.linspace(0, 65535, SIZE).astype(np.uint16), (SIZE, 1))
    data = encoded(Image.fromarray(grey), "TIFF", icc_profile=icc_profiles.grey_profile(1.0))
    light = grey[..., None] / 65535
    expected = 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    assert error(data, expected) < 1


@pytest.mark.parametrize("mode", ["L", "LA", "P"])
def test_grey_and_palette_pictures_are_converted_too(mode: str) -> None:
    profile = icc_profiles.gamma_profile(icc_profiles.SRGB, 1.4)
    plain = picture().convert("L") if mode != "P" else picture().quantize(64)
    shown = np.asarray(plain.convert("RGB"))
    data = encoded(plain.convert(mode), "PNG", icc_profile=profile)
    assert error(data, icc_profiles.to_srgb(shown, icc_profiles.SRGB, 1.4)) < 1


@pytest.mark.parametrize("file_format", ["JPEG", "TIFF"])
def test_inks_are_converted_by_their_profile(file_format: str) -> None:
    profile = icc_profiles.cmyk_profile()
    inks = picture().convert("CMYK")
    data = encoded(inks, file_format, icc_profile=profile, quality=100)
    opened = ImageCms.getOpenProfile(io.BytesIO(profile))
    expected = ImageCms.profileToProfile(
        inks, opened, ImageCms.createProfile("sRGB"), outputMode="RGB"
    )
    assert expected is not None
    naive = np.asarray(inks.convert("RGB")).astype(float)
    assert np.abs(np.asarray(expected) - naive).mean() > 5
    assert error(data, np.asarray(expected).astype(float)) < (0.1 if file_format == "TIFF" else 2)


def test_lab_is_converted() -> None:
    lab = ImageCms.profileToProfile(
        picture(), ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    assert lab is not None
    assert error(encoded(lab, "TIFF"), np.asarray(picture()).astype(float)) < 1.5


@pytest.mark.parametrize(
    "codes, primaries, gamma",
    [
        ((12, 13), icc_profiles.P3, None),
        ((9, 14), icc_profiles.BT2020, None),
        ((1, 8), icc_profiles.SRGB, 1.0),
    ],
)
def test_the_codes_of_a_png_outrank_its_profile(
    codes: tuple[int, int], primaries: Primaries, gamma: float | None
) -> None:
    profile = icc_profiles.gamma_profile(icc_profiles.ADOBE, 2.2)
    file = encoded(picture(), "PNG", icc_profile=profile)
    data = with_chunk(file, chunk(b"cICP", bytes([*codes, 0, 1])))
    assert error(data, icc_profiles.to_srgb(np.asarray(picture()), primaries, gamma)) < 1


def test_gamma_and_chromaticities_of_a_png_are_those_of_its_colours() -> None:
    points = struct.pack(">8I", *(round(100_000 * value) for value in icc_profiles.ADOBE))
    extra = chunk(b"gAMA", struct.pack(">I", 55_000)) + chunk(b"cHRM", points)
    data = with_chunk(encoded(picture(), "PNG"), extra)
    expected = icc_profiles.to_srgb(np.asarray(picture()), icc_profiles.ADOBE, 1 / 0.55)
    assert error(data, expected) < 1
    is_srgb = with_chunk(data, chunk(b"sRGB", b"\0"))
    assert error(is_srgb, np.asarray(picture()).astype(float)) == 0
    usual = with_chunk(encoded(picture(), "PNG"), chunk(b"gAMA", struct.pack(">I", 45_455)))
    assert error(usual, np.asarray(picture()).astype(float)) == 0


def test_the_codes_of_avif_are_those_of_its_colours() -> None:
    data = encoded(picture(), "AVIF", quality=100, subsampling="4:4:4")
    place = data.find(b"colrnclx") + 8
    assert place > 8
    changed = data[:place] + struct.pack(">HH", 12, 13) + data[place + 4 :]
    expected = icc_profiles.to_srgb(np.asarray(picture()), icc_profiles.P3, None)
    assert error(changed, expected) < 1.6


@pytest.mark.parametrize("profile", [b"x", bytes(200), b"\0" * 16 + b"RGB XYZ " + bytes(500)])
@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP"])
def test_a_broken_profile_is_ignored(file_format: str, profile: bytes) -> None:
    plain, with_it = (
        decode_image(encoded(picture(), file_format, **options), SIZE).pixels
        for options in ({}, {"icc_profile": profile})
    )
    assert (plain == with_it).all()


def test_a_profile_of_other_colours_than_the_picture_has_is_ignored() -> None:
    data = encoded(picture(), "PNG", icc_profile=icc_profiles.cmyk_profile(3))
    assert error(data, np.asarray(picture()).astype(float)) == 0


def test_a_profile_of_srgb_changes_nothing() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert transform_to_srgb(profile, "RGB") is None
    data = encoded(picture(), "PNG", icc_profile=profile)
    assert error(data, np.asarray(picture()).astype(float)) == 0


def test_light_is_averaged_as_light_where_the_profile_is_linear() -> None:
    board = np.indices((8 * SIZE, 8 * SIZE)).sum(axis=0) % 2 * 255
    linear = Image.fromarray(np.repeat(board[..., None], 3, axis=-1).astype(np.uint8))
    data = encoded(linear, "PNG", icc_profile=icc_profiles.gamma_profile(icc_profiles.SRGB, 1.0))
    converted_first = np.full((SIZE, SIZE, 3), 127.5)  # black and white have no other levels
    assert error(data, converted_first) < 1


def test_transparent_pixels_are_white_with_a_profile_too() -> None:
    clear = picture().convert("RGBA")
    clear.putalpha(0)
    data = encoded(clear, "PNG", icc_profile=icc_profiles.gamma_profile(icc_profiles.SRGB, 1.0))
    assert (decode_image(data, SIZE).pixels == 255).all()


def test_many_threads_share_a_transform() -> None:
    profile = icc_profiles.gamma_profile(icc_profiles.ADOBE, 1.9)
    data = encoded(picture(), "PNG", icc_profile=profile)
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda _: decode_image(data, SIZE).pixels, range(100)))
    assert all((each == results[0]).all() for each in results)


def test_a_profile_that_unpacks_to_much_is_skipped() -> None:
    bomb = chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(30_000_000), 9))
    data = with_chunk(encoded(picture(), "PNG"), bomb)
    assert error(data, np.asarray(picture()).astype(float)) == 0
