"""Decoding: every common format and mode, hostile bytes, and the limits."""

import io
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import ExifTags, Image

from captioner.errors import ImageError, ImageTooLarge, UnreadableImage
from captioner.image import DecodedImage, ImageLimits, decode, decode_image
from captioner.image.formats.jpeg import plain_pixels

Pixels = npt.NDArray[np.uint8]

UPRIGHT = {
    1: lambda pixels: pixels,
    2: np.fliplr,
    3: lambda pixels: np.rot90(pixels, 2),
    4: np.flipud,
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: np.rot90(pixels, 2).swapaxes(0, 1),
    8: lambda pixels: np.rot90(pixels, 1),
}


def scene(width: int = 60, height: int = 40) -> Pixels:
    """Smooth colours, different at each corner."""
    across, down = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    channels = (across, down, 1 - across * down)
    return np.stack([(20 + 200 * channel).astype(np.uint8) for channel in channels], axis=-1)


def detailed(width: int, height: int) -> Image.Image:
    noise = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((width, height))


def encoded(picture: Image.Image | Pixels, file_format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def squeezed(pixels: Pixels, size: int = 32) -> Pixels:
    return decode_image(encoded(pixels, "PNG"), size).pixels


def difference(left: Pixels, right: Pixels) -> float:
    return float(np.abs(left.astype(float) - right.astype(float)).mean())


def test_a_picture_of_the_right_size_is_not_resampled() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (48, 48, 3), dtype=np.uint8)
    decoded = decode_image(encoded(noise, "PNG"), 48)
    assert (decoded.pixels == noise).all()
    assert (decoded.width, decoded.height, decoded.format) == (48, 48, "PNG")


def test_a_jpeg_of_the_right_size_has_the_codecs_own_pixels() -> None:
    data = encoded(scene(224, 224), "JPEG")
    with Image.open(io.BytesIO(data)) as picture:
        assert (decode_image(data, 224).pixels == np.asarray(picture)).all()


def test_the_whole_picture_is_squeezed_not_cropped() -> None:
    pixels = np.zeros((40, 160, 3), dtype=np.uint8)
    pixels[:, :40] = (255, 0, 0)
    pixels[:, 120:] = (0, 0, 255)
    square = squeezed(pixels)
    assert square.shape == (32, 32, 3)
    assert (square[16, 2] == (255, 0, 0)).all()
    assert (square[16, 16] == 0).all()
    assert (square[16, 29] == (0, 0, 255)).all()


def test_small_pictures_are_enlarged() -> None:
    assert (squeezed(np.full((1, 1, 3), 77, dtype=np.uint8)) == 77).all()


@pytest.mark.parametrize("width, height", [(20, 31), (63, 17), (50, 33), (1, 40), (64, 31)])
def test_pictures_are_resized_by_the_bicubic_filter_of_pillow(width: int, height: int) -> None:
    pixels = scene(width, height)
    pixels[: height // 2, : width // 2] = 255 - pixels[: height // 2, : width // 2]
    expected = Image.fromarray(pixels).resize((32, 32), Image.Resampling.BICUBIC)
    assert np.abs(squeezed(pixels) - np.asarray(expected, dtype=float)).max() <= 1


@pytest.mark.parametrize("width, height", [(2000, 1500), (900, 70), (65, 4000)])
def test_scaled_jpeg_decoding_nearly_equals_full_decoding(width: int, height: int) -> None:
    data = encoded(scene(width, height), "JPEG", quality=95)
    with Image.open(io.BytesIO(data)) as picture:
        in_full = picture.resize((64, 64), Image.Resampling.BICUBIC)
    decoded = decode_image(data, 64)
    assert difference(decoded.pixels, np.asarray(in_full)) < 1
    assert (decoded.width, decoded.height) == (width, height)


@pytest.mark.parametrize("size", [(33, 17), (500, 375), (1023, 700), (1025, 1027), (4001, 2999)])
@pytest.mark.parametrize(
    "options",
    [{}, {"progressive": True}, {"subsampling": 0}, {"subsampling": 1}, {"keep_rgb": True}],
)
def test_jpeg_files_have_the_pixels_that_pillow_decodes(
    size: tuple[int, int], options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = encoded(detailed(*size), "JPEG", quality=80, **options)
    quick: list[Pixels | None] = []
    monkeypatch.setattr(
        decode, "plain_pixels", lambda *given: quick.append(plain_pixels(*given)) or quick[-1]
    )
    decoded = decode_image(data, 256)
    assert quick and quick[0] is not None
    monkeypatch.setattr(decode, "plain_pixels", lambda *given: None)
    by_pillow = decode_image(data, 256)
    assert (decoded.pixels == by_pillow.pixels).all()
    assert replace(decoded, pixels=by_pillow.pixels) == by_pillow


def test_a_jpeg_that_a_bad_disk_has_filled_up_takes_no_longer() -> None:
    data = encoded(detailed(64, 48), "JPEG")
    expected = decode_image(data, 32).pixels
    for padded in (data, data[:-2]):  # with its end, and without
        filled = decode_image(padded + b"\xff" * (64 << 20), 32)  # half a minute for Pillow
        assert (filled.pixels == expected).all()


def test_damaged_jpeg_files_are_left_to_pillow() -> None:
    size = (100, 80)
    data = encoded(detailed(*size), "JPEG")
    assert plain_pixels(data, size) is not None
    assert plain_pixels(data + b"more", size) is not None  # as cameras append it
    assert plain_pixels(data[: len(data) // 2], size) is None
    assert plain_pixels(data, (101, 80)) is None
    middle = len(data) // 2
    assert plain_pixels(data[:middle] + b"\xff\xd0" + data[middle + 2 :], size) is None


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("file_format", ["PNG", "TIFF", "WEBP", "JPEG"])
def test_exif_orientation_is_applied(file_format: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    data = encoded(scene(), file_format, exif=exif, quality=95, lossless=True)
    upright = UPRIGHT[orientation](scene())

    decoded = decode_image(data, 32)

    assert difference(decoded.pixels, squeezed(upright)) < (1.5 if file_format == "JPEG" else 0.01)
    assert (decoded.height, decoded.width) == upright.shape[:2]
    assert decoded.format == file_format


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("exif", [b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff", b"x"])
def test_damaged_exif_data_does_not_matter(exif: bytes) -> None:
    decoded = decode_image(encoded(scene(), "JPEG", exif=exif), 32)
    assert difference(decoded.pixels, squeezed(scene())) < 2


@pytest.mark.parametrize("file_format", ["JPEG", "TIFF"])
def test_cmyk_pictures_keep_their_colours(file_format: str) -> None:
    data = encoded(Image.fromarray(scene()).convert("CMYK"), file_format)
    assert difference(decode_image(data, 32).pixels, squeezed(scene())) < 3


@pytest.mark.parametrize("mode, file_format", [("L", "PNG"), ("L", "JPEG"), ("LA", "PNG")])
def test_grey_pictures_become_grey_rgb(mode: str, file_format: str) -> None:
    grey = Image.fromarray(scene()).convert("L")
    pixels = decode_image(encoded(grey.convert(mode), file_format), 32).pixels
    assert (pixels == pixels[..., :1]).all()
    assert difference(pixels, squeezed(np.asarray(grey.convert("RGB")))) < 1


def test_one_bit_pictures_are_black_and_white() -> None:
    halves = np.zeros((32, 32), dtype=np.uint8)
    halves[:, 16:] = 255
    data = encoded(Image.fromarray(halves).convert("1"), "PNG")
    assert (decode_image(data, 32).pixels == halves[..., None]).all()


def test_palette_pictures_keep_their_colours() -> None:
    data = encoded(Image.fromarray(scene()).quantize(256), "PNG")
    assert difference(decode_image(data, 32).pixels, squeezed(scene())) < 5


@pytest.mark.parametrize("file_format", ["PNG", "WEBP", "TIFF"])
def test_transparent_pixels_are_shown_on_white(file_format: str) -> None:
    pixels = np.zeros((32, 32, 4), dtype=np.uint8)
    pixels[:16] = (200, 0, 0, 255)
    pixels[16:24] = (0, 0, 0, 0)
    pixels[24:] = (0, 0, 0, 128)
    options = {"lossless": True, "exact": True} if file_format == "WEBP" else {}
    decoded = decode_image(encoded(Image.fromarray(pixels), file_format, **options), 32).pixels
    assert (decoded[8, 8] == (200, 0, 0)).all()
    assert (decoded[20, 8] == 255).all()
    assert abs(int(decoded[28, 8, 0]) - 127) <= 1


@pytest.mark.parametrize("file_format", ["PNG", "GIF"])
def test_a_transparent_palette_entry_is_shown_on_white(file_format: str) -> None:
    indices = np.zeros((32, 32), dtype=np.uint8)
    indices[:16] = 1
    picture = Image.fromarray(indices)
    picture.putpalette([0, 0, 0, 10, 200, 30])
    decoded = decode_image(encoded(picture, file_format, transparency=0), 32).pixels
    assert (decoded[4, 4] == (10, 200, 30)).all()
    assert (decoded[28, 4] == 255).all()


def test_a_transparent_colour_without_alpha_channel_is_shown_on_white() -> None:
    pixels = np.zeros((32, 32, 3), dtype=np.uint8)
    pixels[:16] = (9, 8, 7)
    decoded = decode_image(encoded(pixels, "PNG", transparency=(9, 8, 7)), 32).pixels
    assert (decoded[4, 4] == 255).all()
    assert (decoded[28, 4] == 0).all()


@pytest.mark.parametrize(
    "values, file_format",
    [
        (np.linspace(0, 65535, 32).astype(np.uint16), "PNG"),
        (np.linspace(0, 65535, 32).astype(np.uint16), "TIFF"),
        (np.linspace(0, 65535, 32).astype(np.int32), "TIFF"),
        (np.linspace(-70_000, 70_000, 32).astype(np.int32), "TIFF"),
        (np.linspace(0, 1, 32).astype(np.float32), "TIFF"),
        (np.linspace(0, 255, 32).astype(np.float32), "TIFF"),
        (np.linspace(-3e38, 3e38, 32).astype(np.float32), "TIFF"),
    ],
)
def test_deep_pictures_are_scaled_to_eight_bits(values: Any, file_format: str) -> None:
    data = encoded(Image.fromarray(np.tile(values, (32, 1))), file_format)
    expected = np.linspace(0, 255, 32)[None, :, None]
    assert np.abs(decode_image(data, 32).pixels - expected).max() <= 1


def test_a_dark_sixteen_bit_picture_stays_dark() -> None:
    data = encoded(Image.fromarray(np.full((32, 32), 200, dtype=np.uint16)), "PNG")
    assert decode_image(data, 32).pixels.max() <= 1


def test_nan_is_black_and_infinity_white() -> None:
    values = np.full((32, 32), 0.5, dtype=np.float32)
    values[0, 0], values[0, 1], values[0, 2] = np.nan, np.inf, -np.inf
    pixels = decode_image(encoded(Image.fromarray(values), "TIFF"), 32).pixels
    assert pixels[0, :4, 0].tolist() == [0, 255, 0, 128]


def test_a_constant_picture_of_unusual_values_can_be_decoded() -> None:
    values = np.full((32, 32), -5, dtype=np.int32)
    assert decode_image(encoded(Image.fromarray(values), "TIFF"), 32).pixels.shape == (32, 32, 3)


@pytest.mark.parametrize("file_format", ["GIF", "WEBP", "PNG", "TIFF"])
def test_the_first_frame_of_an_animated_file_is_taken(file_format: str) -> None:
    red, blue = (Image.new("RGB", (32, 32), colour) for colour in ("red", "blue"))
    data = encoded(red, file_format, save_all=True, append_images=[blue])
    assert difference(decode_image(data, 32).pixels, np.asarray(red)) < 2


@pytest.mark.parametrize("file_format", ["JPEG2000", "BMP", "PPM", "AVIF"])
def test_other_formats_of_photographs_are_read(file_format: str) -> None:
    if file_format not in Image.SAVE:
        pytest.skip(f"this Pillow has no {file_format}")
    decoded = decode_image(encoded(scene(), file_format), 32)
    assert decoded.format == file_format
    assert difference(decoded.pixels, squeezed(scene())) < 4


def test_too_many_pixels_are_refused_before_decoding() -> None:
    header_only = encoded(scene(60, 40), "PNG")[:41]  # cannot be decoded
    with pytest.raises(ImageTooLarge, match=r"60 x 40 .* 2,399 in total"):
        decode_image(header_only, 32, ImageLimits(max_pixels=2399))
    with pytest.raises(UnreadableImage):
        decode_image(header_only, 32, ImageLimits(max_pixels=2400))


def test_a_decompression_bomb_is_refused() -> None:
    bomb = encoded(Image.new("1", (20_000, 20_000)), "PNG")
    assert len(bomb) < 100_000
    with pytest.raises(ImageTooLarge):
        decode_image(bomb, 32)


def test_a_large_picture_within_the_limits_raises_no_warning() -> None:
    data = encoded(Image.new("L", (9_500, 9_500), 90), "JPEG")  # Pillow warns from 89,478,485
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        decoded = decode_image(data, 32)
    assert (decoded.width, decoded.height) == (9_500, 9_500)
    assert (decoded.pixels == 90).all()


@pytest.mark.parametrize(
    "data, message",
    [
        (b"", "empty file"),
        (b"this is a text named photo.jpg\n", "^not an image, but text$"),
        ("f\xfcr dich".encode(), "^not an image, but text$"),
        (b"\n<!DOCTYPE HTML><html>404</html>", "^not an image, but an HTML page$"),
        (b'<?xml version="1.0"?><Error/>', "^not an image, but XML$"),
        (b'{"error": "expired"}', "^not an image, but JSON$"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "^not an image, but a pointer of Git"),
        (bytes(1000), "^not an image, but zeros only$"),
        (bytes(range(200)), "^not an image in a known format$"),
        (b"\x89PNG\r\n\x1a\n", "^damaged: the data cannot be decoded$"),
        (b"P6 1\xff 2 255 " + bytes(9), "^damaged: the data cannot be decoded$"),
        (encoded(scene(), "JPEG")[:700], "^truncated|^damaged"),
        (encoded(scene(300, 300), "JPEG", quality=95)[:-2000], "^truncated: the data end before"),
        (encoded(scene(300, 300), "BMP")[:-2000], "^truncated: "),
        (encoded(scene(), "PNG")[:20], "^truncated: "),
        (encoded(scene(), "PNG").replace(b"IDAT", b"IDxT"), "^damaged: "),
    ],
)
def test_the_error_describes_the_damage(data: bytes, message: str) -> None:
    with pytest.raises(UnreadableImage, match=message) as caught:
        decode_image(data, 32)
    assert "\n" not in str(caught.value)
    assert " at 0x" not in str(caught.value)


FUZZED = {
    "jpeg": encoded(scene(), "JPEG"),
    "progressive jpeg": encoded(scene(), "JPEG", progressive=True),
    "jpeg with exif": encoded(scene(), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0"),
    "png": encoded(scene(), "PNG"),
    "palette png": encoded(Image.fromarray(scene()).quantize(16), "PNG", transparency=3),
    "gif": encoded(scene(), "GIF", save_all=True, append_images=[Image.new("RGB", (60, 40))]),
    "webp": encoded(scene(), "WEBP"),
    "tiff": encoded(scene(), "TIFF"),
    "deflated tiff": encoded(scene(), "TIFF", compression="tiff_adobe_deflate"),
    "bmp": encoded(scene(), "BMP"),
}


def outcome(data: bytes) -> DecodedImage | ImageError:
    try:
        return decode_image(data, 16, ImageLimits(max_pixels=1_000_000))
    except ImageError as error:
        return error


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, of odd TIFF tags
@pytest.mark.parametrize("name", FUZZED)
def test_damaged_files_give_an_image_or_an_image_error(name: str) -> None:
    data = FUZZED[name]
    random = np.random.default_rng(len(data))
    for percent in range(0, 100, 5):
        outcome(data[: len(data) * percent // 100])
    for _ in range(150):
        damaged = np.frombuffer(data, dtype=np.uint8).copy()
        reach = random.choice([len(data), min(len(data), 150)])  # headers break in more ways
        places = random.integers(0, reach, random.integers(1, 10))
        damaged[places] = random.integers(0, 256, len(places))
        outcome(damaged.tobytes())
    assert isinstance(outcome(data), DecodedImage)
    assert isinstance(outcome(data[: len(data) // 20]), UnreadableImage)


def test_many_threads_decode_the_same_pixels_as_one() -> None:
    files = [encoded(scene(300 + 7 * number, 200), "JPEG") for number in range(24)]
    alone = [decode_image(data, 32).pixels for data in files]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda data: decode_image(data, 32).pixels, files))
    assert all((one == other).all() for one, other in zip(alone, together, strict=True))
