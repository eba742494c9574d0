"""Kinds of image files: what is fine is captioned at its real size, and never called damaged."""

import resource
import struct
import sys
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import ExifTags, Image

from captioner.errors import (
    ImageError,
    ImageTooLarge,
    OutOfMemory,
    UnreadableImage,
    UnsupportedImage,
)
from captioner.image import ImageLimits, decode, decode_image, opening
from captioner.image.formats import signatures
from captioner.image.formats.sizes import size_in_header
from captioner.image.memory import BUDGET
from tests.support.hostile_files import KINDS, hostile_images
from tests.support.hostile_files.parts import chunk, encoded, grey_tiff, ico, png, with_chunk

Pixels = npt.NDArray[np.uint8]


def scene(width: int = 60, height: int = 40) -> Image.Image:
    across, down = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    channels = [(20 + 200 * each).astype(np.uint8) for each in (across, down, 1 - across * down)]
    return Image.fromarray(np.stack(channels, axis=-1))


def difference(data: bytes, expected: Image.Image, size: int = 32) -> float:
    """Return the mean difference of a file from a picture, of 256 levels."""
    right = decode_image(expected.convert("RGB"), size).pixels.astype(float)
    return float(np.abs(decode_image(data, size).pixels - right).mean())


def allocation_error() -> RuntimeError:
    """Return what PyTorch raises where there is no memory."""
    with pytest.raises(RuntimeError) as caught:
        torch.empty(10**15)
    return caught.value


def with_orientation(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    return exif


# Formats


@pytest.mark.parametrize(
    "file_format, kind",
    [("TGA", "TGA"), ("ICO", "ICO"), ("JPEG2000", "JPEG2000"), ("MPO", "JPEG")],
)
def test_more_formats_are_read_at_their_real_size(file_format: str, kind: str) -> None:
    options: dict[str, Any] = {"sizes": [(60, 40)]} if file_format == "ICO" else {}
    data = encoded(scene(), file_format, **options)
    decoded = decode_image(data, 32)
    assert (decoded.width, decoded.height, decoded.format) == (60, 40, kind)
    assert difference(data, scene()) < 4


def test_a_psd_is_shown_as_it_was_saved() -> None:
    planes = np.moveaxis(np.asarray(scene()), -1, 0)
    head = b"8BPS" + struct.pack(">H6xHIIHH", 1, 3, 40, 60, 8, 3) + bytes(12)
    data = head + b"\0\0" + planes.tobytes()
    assert decode_image(data, 32).format == "PSD"
    assert difference(data, scene()) == 0


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_a_heic_photograph_is_upright(orientation: int) -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    pillow_heif.register_heif_opener()
    picture = scene(64, 40)
    picture.getexif()[ExifTags.Base.Orientation] = orientation  # becomes a box of the file
    data = encoded(picture, "HEIF", quality=95)
    decoded = decode_image(data, 32)
    upright = {1: 0, 3: 180, 6: -90, 8: 90}[orientation]
    expected = scene(64, 40).rotate(upright, expand=True)
    assert (decoded.width, decoded.height, decoded.format) == (*expected.size, "HEIF")
    assert difference(data, expected) < 4


def test_jpeg_xl_is_read() -> None:
    pytest.importorskip("pillow_jxl")
    data = encoded(scene(), "JXL", lossless=True)
    assert decode_image(data, 32).format == "JXL"
    assert difference(data, scene()) < 1
    with pytest.raises(ImageTooLarge, match="60 x 40"):
        decode_image(data, 32, ImageLimits(max_pixels=2399))


def box(kind: bytes, content: bytes, wide: bool = False) -> bytes:
    size = struct.pack(">IQ", 1, len(content) + 16) if wide else struct.pack(">I", len(content) + 8)
    return size[:4] + kind + size[4:] + content


def test_the_size_of_jpeg_xl_is_that_of_its_codestream_whatever_other_boxes_say() -> None:
    pytest.importorskip("pillow_jxl")
    codes = [encoded(scene().resize(size), "JXL", lossless=True) for size in ((8, 8), (60, 40))]
    small, code = (code[code.find(b"\xff\x0a") :] for code in codes)
    start = b"\0\0\0\x0cJXL \r\n\x87\n" + box(b"ftyp", b"jxl \0\0\0\0jxl ")
    lie = box(b"xml ", b"jxlc" + small)
    pieces = (code[:1], b"", code[1:7], code[7:])
    counted = enumerate(pieces[:-1])
    parts = b"".join(box(b"jxlp", struct.pack(">I", n) + piece) for n, piece in counted)
    last = box(b"jxlp", struct.pack(">I", 0x80000003) + pieces[-1])
    for boxes in (box(b"jxlc", code), box(b"jxlc", code, wide=True), parts + last):
        assert size_in_header("JXL", start + lie + boxes) == (60, 40)
    decoded = decode_image(start + lie + box(b"jxlc", code), 32)
    assert (decoded.width, decoded.height) == (60, 40)
    for damaged in (start + lie, start + b"\0\0\0\x02jxlc" + code, start[:14]):
        with pytest.raises(UnreadableImage, match="the header has no size"):
            decode_image(damaged, 32)


HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"


@pytest.mark.parametrize(
    "data, module, extra",
    [(HEIC, "pillow_heif", "heif"), (b"\xff\x0a\x41\0\0\0", "pillow_jxl", "jxl")],
)
def test_the_error_names_the_extra_that_is_missing(
    data: bytes, module: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    for name in ("HEIF", "JXL"):
        monkeypatch.delitem(Image.OPEN, name, raising=False)
    opening._register.cache_clear()
    with pytest.raises(UnsupportedImage, match=rf"pip install 'captioner\[{extra}\]'"):
        decode_image(data, 32)
    opening._register.cache_clear()


# RAW


def raw_file(preview: bytes, sensor: tuple[int, int], orientation: int = 1) -> bytes:
    """Return a DNG with a thumbnail, a JPEG and a sensor of this size, without its values."""
    thumbnail, jpeg_at = bytes(30), 8 + 30
    first_at = jpeg_at + len(preview)
    first = {254: 1, 256: 5, 257: 2, 258: 8, 259: 1, 262: 2, 273: 8, 274: orientation, 277: 3}
    first |= {278: 2, 279: 30, 330: first_at + 2 + 12 * 13 + 4, 50706: 0x0401}
    second = {254: 0, 256: sensor[0], 257: sensor[1], 258: 16, 259: 1, 262: 32803, 273: 8}
    second |= {277: 1, 278: sensor[1], 279: 30}
    tables = b""
    for tags in (first, second):
        entries = [struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(tags.items())]
        tables += struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4)
    return b"II*\0" + struct.pack("<I", first_at) + thumbnail + preview + tables


def test_a_raw_file_is_shown_by_its_jpeg_of_full_size() -> None:
    preview = encoded(scene(120, 80), "JPEG", quality=95)
    decoded = decode_image(raw_file(preview, (124, 84)), 32)
    assert (decoded.width, decoded.height, decoded.format) == (120, 80, "RAW")
    assert difference(raw_file(preview, (124, 84)), scene(120, 80)) < 3
    turned = decode_image(raw_file(preview, (124, 84), orientation=6), 32)
    assert (turned.width, turned.height) == (80, 120)


def test_a_raw_file_is_never_shown_by_its_thumbnail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rawpy", None)
    small = encoded(scene(60, 40), "JPEG")
    with pytest.raises(UnsupportedImage, match=r"captioner\[raw\]"):
        decode_image(raw_file(small, (600, 400)), 32)


# What is not opened


@pytest.mark.parametrize(
    "data, name",
    [
        (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
        (b"%PDF-1.7\n", "PDF"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "PostScript"),
        (b"\0\0\0\x18ftypisom\0\0\2\0isomiso2", "video"),
        (b"PK\x03\x04" + bytes(40), "ZIP"),
        (grey_tiff(np.zeros((4, 4)), 3), "not supported"),
    ],
)
def test_what_is_not_opened_is_not_called_damaged(data: bytes, name: str) -> None:
    with pytest.raises(UnsupportedImage, match=name) as caught:
        decode_image(data, 32)
    assert "damaged" not in str(caught.value)


@pytest.mark.parametrize("error", [MemoryError(), allocation_error()])
def test_a_lack_of_memory_is_no_damage(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(torch.nn.functional, "interpolate", fail)
    with pytest.raises(OutOfMemory, match="not enough memory"):
        decode_image(encoded(scene(), "PNG"), 32)


def test_a_fault_of_pytorch_is_no_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("could not create a primitive")

    monkeypatch.setattr(torch.nn.functional, "interpolate", fail)
    with pytest.raises(RuntimeError, match=r"^could not create a primitive$"):
        decode_image(encoded(scene(), "PNG"), 32)


# Damage that does not matter


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_rows": 1}])
@pytest.mark.parametrize("missing", [1, 2, 10])
def test_a_jpeg_without_its_last_bytes_is_shown(options: dict[str, Any], missing: int) -> None:
    data = encoded(scene(400, 300), "JPEG", quality=90, **options)
    whole = decode_image(data, 32).pixels.astype(float)
    assert np.abs(decode_image(data[:-missing], 32).pixels - whole).mean() < 0.5


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_rows": 1}])
@pytest.mark.parametrize("share", [0.1, 0.3])
def test_a_jpeg_that_lacks_much_is_not(options: dict[str, Any], share: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), "JPEG", **options)
    with pytest.raises(UnreadableImage, match=r"^truncated: "):
        decode_image(data[: int(share * len(data))], 400)


@pytest.mark.parametrize(
    "extra",
    [
        chunk(b"tEXt", b"Comment\0x", crc=1),
        chunk(b"cHRM", bytes(7)),
        chunk(b"gAMA", b""),
        chunk(b"eXIf", b"x"),
        chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(3_000_000))),
        chunk(b"zTXt", b"Comment\0\0x"),
        chunk(b"iTXt", b"Comment\0\1\0\0\0" + bytes(2 << 20)),
    ],
)
def test_damage_beside_the_picture_of_a_png_does_not_matter(extra: bytes) -> None:
    assert difference(with_chunk(encoded(scene(), "PNG"), extra), scene()) == 0


def test_a_wrong_checksum_of_the_picture_and_a_missing_end_do_not_matter() -> None:
    data = encoded(scene(), "PNG")
    place = data.index(b"IEND") - 8
    assert difference(data[:place] + b"\0\0\0\0" + data[place + 4 :], scene()) == 0
    assert difference(data[: place - 2], scene()) == 0


def test_the_orientation_in_a_text_chunk_is_applied() -> None:
    exif = with_orientation(6).tobytes().removeprefix(b"Exif\0\0")
    text = b"\nexif\n%8d\n" % len(exif) + exif.hex().encode()
    extra = chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(text))
    decoded = decode_image(with_chunk(encoded(scene(), "PNG"), extra), 32)
    assert (decoded.width, decoded.height) == (40, 60)


# Depth


def ramp(dtype: str, low: float, high: float) -> npt.NDArray[Any]:
    return np.tile(np.linspace(low, high, 32), (32, 1)).astype(dtype)


def levels(data: bytes) -> npt.NDArray[Any]:
    """Return the levels of grey across a picture."""
    return decode_image(data, 32).pixels[16, :, 0].astype(int)


RISING = np.linspace(0, 255, 32)


@pytest.mark.parametrize(
    "data",
    [
        grey_tiff(ramp("uint32", 0, 2**32 - 1), 1),
        grey_tiff(ramp("uint32", 0, 2**32 - 1), 1, compression=8),
        grey_tiff(ramp("uint32", 0, 65535), 1),
        grey_tiff(ramp("uint16", 65535, 0), 1, photometric=0),
        grey_tiff(ramp("float32", 0, 1), 3),
        grey_tiff(ramp("float32", 0, 5), 3),
    ],
)
def test_deep_tiffs_have_their_whole_range(data: bytes) -> None:
    assert np.abs(levels(data) - RISING).max() <= 1


@pytest.mark.parametrize("stray", [1.001, 30, 1e30, np.inf, np.nan, -5])
def test_one_pixel_does_not_decide_about_all_others(stray: float) -> None:
    values = np.tile(np.linspace(0, 1, 64), (64, 1)).astype(np.float32)
    values[0, 0] = stray
    pixels = decode_image(grey_tiff(values, 3), 64).pixels[1:, :, 0].astype(float)
    assert np.abs(pixels - np.linspace(0, 255, 64)).max() <= 1


# Several pictures in a file


def test_a_thumbnail_at_the_beginning_of_a_tiff_is_passed_over() -> None:
    pages = {"save_all": True, "append_images": [scene(), Image.new("RGB", (30, 20))]}
    data = encoded(Image.new("RGB", (6, 4)), "TIFF", tiffinfo={254: 1}, **pages)
    # Pillow gives all pages the tags of the first
    tag = struct.pack("<HHI", 254, 4, 1)
    first, rest = data.split(tag, 1)
    data = first + tag + rest.replace(tag + b"\1\0\0\0", tag + bytes(4))
    decoded = decode_image(data, 32)
    assert (decoded.width, decoded.height) == (60, 40)
    assert difference(data, scene()) == 0


def test_the_first_page_of_a_document_is_taken_though_others_are_larger() -> None:
    pages = {"save_all": True, "append_images": [Image.new("RGB", (600, 400))]}
    assert difference(encoded(scene(), "TIFF", **pages), scene()) == 0


@pytest.mark.parametrize("file_format", ["GIF", "PNG", "WEBP"])
def test_the_first_frame_that_shows_anything_is_taken(file_format: str) -> None:
    blank, other = Image.new("RGB", (60, 40), "white"), Image.new("RGB", (60, 40), "red")
    other.paste("blue", (0, 0, 30, 40))
    data = encoded(blank, file_format, save_all=True, append_images=[blank.copy(), other])
    assert difference(data, other) < 3
    only_blank = encoded(blank, file_format, save_all=True, append_images=[blank.copy()])
    assert (decode_image(only_blank, 32).pixels == 255).all()


def test_the_picture_of_an_icon_may_have_another_size_than_it_says() -> None:
    with pytest.warns(UserWarning, match="expected size"):
        decoded = decode_image(ico(encoded(scene(), "PNG"), 16), 32)
    assert decoded.format == "ICO"


@pytest.mark.parametrize("file_format", ["WEBP", "JXL", "ICO", "AVIF", "HEIF", "JPEG2000"])
def test_no_picture_has_more_pixels_than_its_header_says(
    file_format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if file_format == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()
    if file_format == "JXL":
        pytest.importorskip("pillow_jxl")
    data = encoded(scene(), file_format)
    if file_format in signatures.OPEN_WHOLE:
        monkeypatch.setattr(decode, "size_in_header", lambda *_: (4, 4))
    else:
        monkeypatch.setattr(decode, "load", lambda _: scene(61, 40))
    with pytest.raises(UnreadableImage, match="its header says"):
        decode_image(data, 32)


def test_an_icon_is_too_large_by_its_picture_whatever_its_header_hides() -> None:
    whole = png((2_000, 2_000), 8, 0, zlib.compress(bytes(2_001 * 2_000)))
    hidden = whole[:8] + chunk(b"tEXt", struct.pack(">II", 16, 16)) + whole[8:]
    with pytest.raises(UnreadableImage, match="the header has no size"):
        decode_image(ico(hidden, 16), 32)
    os2 = struct.pack("<IHHHH", 12, 65_535, 65_535, 1, 24)
    with pytest.raises(ImageTooLarge, match="65535 x 65535"):
        decode_image(ico(os2 + bytes(100), 16), 32)


# Everything


@pytest.mark.filterwarnings("ignore")
def test_hostile_images_give_an_image_or_an_image_error_in_bounded_memory() -> None:
    assert len(KINDS) >= 60
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for kind, _, data in hostile_images(2 * len(KINDS), seed=1):
        try:
            decoded = decode_image(data, 16)
            assert decoded.pixels.shape == (16, 16, 3), kind
        except ImageError as error:
            assert str(error), kind
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before  # KiB
    assert 1024 * grown < 1.2 * BUDGET
