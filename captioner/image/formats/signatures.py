"""What kind of file it is, by its first bytes, whatever its name says."""

import re

from PIL import Image

from captioner.errors import UnreadableImage, UnsupportedImage

# Kinds that are opened, in the words of Pillow where it has one.
JPEG, PNG, WEBP, GIF, TIFF, BMP = "JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"
AVIF, HEIF, JPEG2000, PPM, PSD, ICO, TGA = "AVIF", "HEIF", "JPEG2000", "PPM", "PSD", "ICO", "TGA"
JXL, RAW = "JXL", "RAW"
OPEN_WHOLE = (WEBP, JXL, ICO, GIF)  # take the memory of the picture when they are opened

Image.init()  # here, because the lazy registration of plugins is not thread-safe

_JPEG_START = b"\xff\xd8\xff"
_STARTS = (
    (b"\x89PNG\r\n\x1a\n", PNG),
    (b"GIF8", GIF),
    *((magic, TIFF) for magic in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")),
    (b"\xff\x4f\xff\x51", JPEG2000),
    (b"\0\0\0\x0cjP  \r\n\x87\n", JPEG2000),
    (b"8BPS", PSD),
    (b"\0\0\1\0", ICO),
    (b"\xff\x0a", JXL),
    (b"\0\0\0\x0cJXL \r\n\x87\n", JXL),
    *((magic, RAW) for magic in (b"IIRO", b"IIRS", b"MMOR", b"IIU\0", b"FUJIFILMCCD-RAW")),
    *((magic, RAW) for magic in (b"FOVb", b"\0MRM", b"II\x1a\0\0\0HEAPCCDR")),
)
_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"hevm", b"hevs")
_GENERIC_BRANDS = (b"mif1", b"msf1", b"mif2", b"miaf")
_AVIF_BRANDS = (b"avif", b"avis")

# Kinds that are not opened. Nobody keeps photographs in most of them, and each widens the attack
# surface: opening an EPS file starts Ghostscript.
_OTHERS = (
    (b"%PDF-", "PDF"),
    (b"%!PS", "PostScript"),
    (b"\xc5\xd0\xd3\xc6", "EPS"),
    (b"gimp xcf", "XCF"),
    (b"8BPB", "PSB"),
    (b"icns", "ICNS"),
    (b"DDS ", "DDS"),
    (b"v/1\x01", "OpenEXR"),
    (b"#?RADIANCE", "Radiance HDR"),
    (b"#?RGBE", "Radiance HDR"),
    (b"SIMPLE  =", "FITS"),
    (b"\0\0\2\0", "CUR"),
    (b"qoif", "QOI"),
    (b"\xd7\xcd\xc6\x9a", "WMF"),
    (b"AT&TFORM", "DjVu"),
    (b"BPG\xfb", "BPG"),
    (b"\x1a\x45\xdf\xa3", "Matroska or WebM video"),
    (b"OggS", "Ogg"),
    (b"ID3", "MP3"),
    (b"fLaC", "FLAC"),
    (b"PK\x03\x04", "ZIP"),
    (b"\x1f\x8b", "gzip"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\0", "xz"),
    (b"7z\xbc\xaf\x27\x1c", "7-Zip"),
    (b"Rar!\x1a\x07", "RAR"),
    (b"\x28\xb5\x2f\xfd", "Zstandard"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "Microsoft Office"),
    (b"SQLite format 3\0", "SQLite"),
    (b"PAR1", "Parquet"),
)
_RIFFS = {b"AVI ": "AVI video", b"WAVE": "WAVE"}
_TEXTS = (  # that are saved in the place of an image, in lower case
    (b"<!doctype html", "an HTML page"),
    (b"<html", "an HTML page"),
    (b"<?xml", "XML"),
    (b"{", "JSON"),
    (b"version https://git-lfs", "a pointer of Git LFS"),
)
_IN_NO_TEXT = re.compile("[\0-\x08\x0e-\x1f\ufffd]")
_SVG = re.compile(rb"<svg[\s>]")
_XML = re.compile(rb"^(\xef\xbb\xbf)?\s*<(\?xml|!DOCTYPE svg|!--|svg[\s>])")
_BMP_HEADERS = (12, 16, 40, 52, 56, 64, 108, 124)  # bytes
_TGA_DEPTHS = (8, 15, 16, 24, 32)


def kind_of(data: bytes) -> str:
    """Return the kind of an image that can be opened.

    Raise UnsupportedImage if the bytes are a file of a kind that is not opened, UnreadableImage if
    they are none that is known here.
    """
    if data.startswith(_JPEG_START):  # first, because most are
        return JPEG
    if not data:
        raise UnreadableImage("empty file")
    kind = next((kind for magic, kind in _STARTS if data.startswith(magic)), None)
    kind = kind or _by_inner_mark(data)
    if kind:
        return kind
    if _is_targa(data):
        return TGA
    if other := _other(data):
        raise UnsupportedImage(f"not supported: {other}")
    raise UnreadableImage(f"not an image{_what_else(data)}")


def _by_inner_mark(data: bytes) -> str | None:
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return WEBP
    if data[:2] == b"BM" and int.from_bytes(data[14:18], "little") in _BMP_HEADERS:
        return BMP
    if _accepts_netpbm(data):
        return PPM
    if data[4:8] != b"ftyp":
        return None
    if data[8:12] == b"crx ":
        return RAW
    brands = (data[8:12], *_compatible(data))
    if any(brand in _AVIF_BRANDS for brand in brands):
        return AVIF
    known = (*_HEIF_BRANDS, *_GENERIC_BRANDS)
    return HEIF if brands[0] in known or any(brand in _HEIF_BRANDS for brand in brands) else None


def _accepts_netpbm(data: bytes) -> bool:
    """Return whether Pillow takes a file for one of the many kinds of Netpbm."""
    _, accepts = Image.OPEN[PPM]
    return accepts is not None and accepts(data[:16]) is True


def _compatible(data: bytes) -> list[bytes]:
    """Return the compatible brands of a file that begins with the box `ftyp`."""
    end = min(int.from_bytes(data[:4], "big"), 256)
    return [data[place : place + 4] for place in range(16, end, 4)]


def _other(data: bytes) -> str | None:
    if data[4:8] == b"ftyp":
        return "a video, or another file of the ISO family"
    if data[:4] == b"RIFF":
        return _RIFFS.get(data[8:12])
    if data[128:132] == b"DICM":
        return "DICOM"
    if data[257:262] == b"ustar":
        return "TAR"
    if _XML.match(data[:256]) and _SVG.search(data[:65536]):
        return "SVG"
    return next((name for magic, name in _OTHERS if data.startswith(magic)), None)


def _what_else(data: bytes) -> str:
    """Return what a file that is no image is, as far as its beginning tells."""
    if not data.strip(b"\0"):
        return ", but zeros only"
    start = data[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if _IN_NO_TEXT.search(start.decode(errors="replace")[:-1]):  # a last letter may be cut
        return " in a known format"
    return f", but {next((name for begin, name in _TEXTS if start.startswith(begin)), 'text')}"


def _is_targa(data: bytes) -> bool:
    """Return whether a file without a signature has a header of Targa that its length allows."""
    if len(data) < 19 or data[1] > 1 or data[2] not in (1, 2, 3, 9, 10, 11):
        return False
    has_palette = data[1] == 1
    width, height = (int.from_bytes(data[place : place + 2], "little") for place in (12, 14))
    whole = width * height * data[16] // 8
    least = whole // 128 if data[2] > 8 else whole  # run lengths
    plausible = has_palette == (data[2] in (1, 9)) and data[16] in _TGA_DEPTHS
    return plausible and 0 < least <= len(data)
