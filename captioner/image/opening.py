"""The bytes of a file -> a picture of Pillow whose header was read, and its colours."""

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module

from PIL import Image, ImageFile

from captioner.errors import UnsupportedImage
from captioner.image.colour.codes import profile_of_codes
from captioner.image.damage import is_truncated
from captioner.image.formats import signatures
from captioner.image.formats.frames import turn_to_picture
from captioner.image.formats.gif import open_gif
from captioner.image.formats.jpeg import open_jpeg, with_end
from captioner.image.formats.png import chunk_profile, picture_chunks

_NO_CHUNKS: Mapping[bytes, bytes] = {}
_EXTRAS = {"HEIF": "heif", "JXL": "jxl"}
_CODES = b"colrnclx"  # of AVIF and HEIF: primaries and transfer function follow, of 16 bits
_JP2_PROFILE = b"colr\x02"


@dataclass(frozen=True)
class Opened:
    """A picture whose header was read, and the profile of its colours, None for sRGB."""

    kind: str
    data: bytes
    picture: ImageFile.ImageFile
    chunks: Mapping[bytes, bytes]  # of a PNG, about colours

    def profile(self) -> bytes | None:
        """Return the ICC profile of the picture, once it was loaded; None for sRGB."""
        embedded = self.picture.info.get("icc_profile")
        embedded = embedded if isinstance(embedded, bytes) else None
        if self.kind == signatures.PNG:
            return chunk_profile(self.chunks, embedded)
        if self.kind == signatures.JPEG2000:
            return embedded or _jp2_profile(self.data)
        if self.kind in (signatures.AVIF, signatures.HEIF):
            return embedded or _coded_profile(self.data)
        return embedded


def open_picture(kind: str, data: bytes) -> Opened:
    """Read the header of a file of this kind; a warning about its size is left out.

    Raise UnsupportedImage if it needs an extra that is not installed. The errors of Pillow for
    damaged files are those of `damage.DAMAGED`.
    """
    chunks = _NO_CHUNKS
    if kind == signatures.PNG:
        data, chunks = picture_chunks(data)
    if kind == signatures.JPEG:
        data = data.rstrip(b"\xff")  # of a bad disk: Pillow's time grows with its square
    picture = _header(kind, data)
    turn_to_picture(picture)
    return Opened(kind, data, picture, chunks)


def _header(kind: str, data: bytes) -> ImageFile.ImageFile:
    if kind == signatures.JPEG:
        return open_jpeg(data)
    if kind == signatures.GIF:
        return open_gif(data)
    return _factory(kind)(io.BytesIO(data), "")


def load(opened: Opened) -> ImageFile.ImageFile:
    """Decode an open picture, and return it.

    A JPEG that ends early is read to its end by another picture if it lacks no more than a trace.
    """
    picture = opened.picture
    try:
        picture.load()
    except OSError as error:
        if opened.kind != signatures.JPEG or not is_truncated(error):
            raise
        ended = with_end(opened.data, picture.size)
        if ended is None:
            raise
        picture = open_jpeg(ended)
        picture.draft(None, opened.picture.size)
        picture.load()
    return picture


def _factory(kind: str) -> Callable[..., ImageFile.ImageFile]:
    _register(kind)
    factory, _ = Image.OPEN.get(kind, (None, None))
    if factory is None:
        raise UnsupportedImage(_needs(kind))
    return factory


def _needs(kind: str) -> str:
    if extra := _EXTRAS.get(kind):
        return f"not supported: {kind} needs the extra {extra}: pip install 'captioner[{extra}]'"
    return f"not supported: the installed Pillow has no decoder for {kind}"


@cache
def _register(kind: str) -> None:
    """Register the plugin of an extra with Pillow, if it is installed."""
    try:
        if kind == signatures.HEIF:
            import_module("pillow_heif").register_heif_opener()
        elif kind == signatures.JXL:
            import_module("pillow_jxl")  # registers itself
    except ImportError:
        pass


def _coded_profile(data: bytes) -> bytes | None:
    place = data.find(_CODES)
    codes = data[place + len(_CODES) : place + len(_CODES) + 4]
    return profile_of_codes(codes[1], codes[3]) if place >= 0 and len(codes) == 4 else None


def _jp2_profile(data: bytes) -> bytes | None:
    place = data.find(_JP2_PROFILE)
    if place < 4:
        return None
    size = int.from_bytes(data[place - 4 : place], "big")
    return data[place + 7 : place - 4 + size] or None
