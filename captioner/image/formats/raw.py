"""RAW files of cameras: by the JPEG of full size in them or, with the extra `raw`, developed."""

import io
from collections.abc import Iterator
from dataclasses import dataclass

from PIL import Image, TiffImagePlugin

from captioner.errors import UnreadableImage, UnsupportedImage
from captioner.image.damage import DAMAGED
from captioner.image.formats.jpeg import open_jpeg
from captioner.image.memory import DECODING, ImageLimits, bytes_before_opening

RAW = "RAW"
_WIDTH, _LENGTH, _ORIENTATION, _SUBFILE, _PHOTOMETRIC = 256, 257, 274, 254, 262
_SUBIFDS, _DNG_VERSION = 330, 50706
_SENSOR = (32803, 34892)  # photometric interpretations: colour filter array, linear raw
_DIRECTORIES = 32  # that are looked at
_JPEG_STARTS = tuple(
    b"\xff\xd8\xff" + bytes([mark]) for mark in (0xDB, 0xC0, 0xC4, 0xE0, 0xE1, 0xFE)
)
_PREVIEWS = 64  # that are looked at
_NEARLY = 0.9  # of the sensor's width and height: cameras cut its margins
_UNKNOWN_SIZE = (1024, 683)  # what a preview must have if the sensor's size is not known

Size = tuple[int, int]


@dataclass(frozen=True)
class RawFile:
    """A RAW file; `size` is that of the sensor, `orientation` an EXIF value, if it says so."""

    data: bytes
    size: Size | None
    orientation: int | None

    def full_preview(self) -> bytes | None:
        """Return the JPEG of full size in the file, from its first byte on; None without one."""
        previews = {place: _jpeg_size(self.data, place) for place in _jpeg_places(self.data)}
        sizes = {place: size for place, size in previews.items() if size}
        largest = max(sizes, key=lambda place: sizes[place][0] * sizes[place][1], default=None)
        if largest is None or not self._is_full(sizes[largest]):
            return None
        return self.data[largest:]

    def _is_full(self, preview: Size) -> bool:
        least = self.size or _UNKNOWN_SIZE
        share = _NEARLY if self.size else 1
        return all(a >= share * b for a, b in zip(sorted(preview), sorted(least), strict=True))


def is_raw(data: bytes) -> bool:
    """Return whether a TIFF is the RAW file of a camera."""
    if data[8:10] == b"CR":
        return True
    directories = [*_directories(data)]
    return any(
        _DNG_VERSION in each or _number(each, _PHOTOMETRIC) in _SENSOR for each in directories
    )


def read_raw(data: bytes) -> RawFile:
    """Read what the directories of a RAW file say; those that are no TIFF say nothing."""
    directories = [*_directories(data)]
    sensors = [each for each in directories if _number(each, _PHOTOMETRIC) in _SENSOR]
    sizes = [(_number(each, _WIDTH) or 0, _number(each, _LENGTH) or 0) for each in sensors]
    size = max(sizes, key=lambda size: size[0] * size[1], default=None)
    return RawFile(data, size, _number(directories[0], _ORIENTATION) if directories else None)


def develop(data: bytes, side: int, limits: ImageLimits) -> tuple[Image.Image, Size]:
    """Return the upright picture of a RAW file, perhaps half as large, and its full size.

    Raise UnsupportedImage without the extra `raw`, or for a camera that it does not know.
    """
    try:
        import rawpy
    except ImportError as error:
        raise UnsupportedImage(
            "not supported: a RAW file without a JPEG of full size needs the extra raw: "
            "pip install 'captioner[raw]'"
        ) from error
    try:
        with rawpy.imread(io.BytesIO(data)) as file:
            sizes = file.sizes
            size = (sizes.width, sizes.height) if sizes.flip < 4 else (sizes.height, sizes.width)
            limits.check(RAW, size)
            with DECODING.taken(bytes_before_opening(RAW, size, data)):
                pixels = file.postprocess(use_camera_wb=True, half_size=min(size) >= 4 * side)
                return Image.fromarray(pixels), size
    except (rawpy.LibRawFileUnsupportedError, rawpy.NotSupportedError) as error:
        raise UnsupportedImage(f"not supported: {_text(error)}") from error
    except rawpy.LibRawError as error:
        raise UnreadableImage(f"damaged: {_text(error)}") from error


def _text(error: Exception) -> str:
    text = error.args[0] if error.args else error
    return text.decode(errors="replace") if isinstance(text, bytes) else str(text)


def _directories(data: bytes) -> Iterator[TiffImagePlugin.ImageFileDirectory_v2]:
    """Yield the directories of a TIFF and those below them, as far as they can be read."""
    file = io.BytesIO(data)
    try:
        head = TiffImagePlugin.ImageFileDirectory_v2(file.read(8))
    except DAMAGED:
        return
    waiting, seen = [head.next], set[int]()
    while waiting and len(seen) < _DIRECTORIES:
        place = waiting.pop(0)
        if not 0 < place < len(data) or place in seen:
            continue
        seen.add(place)
        directory = TiffImagePlugin.ImageFileDirectory_v2(data[:8])
        try:
            file.seek(place)
            directory.load(file)
            waiting += [directory.next, *_numbers(directory, _SUBIFDS)]
        except DAMAGED:
            continue
        yield directory


def _numbers(directory: TiffImagePlugin.ImageFileDirectory_v2, tag: int) -> list[int]:
    try:
        value = directory.get(tag, ())
    except DAMAGED:
        return []
    values = value if isinstance(value, tuple) else (value,)
    return [each for each in values[:_DIRECTORIES] if isinstance(each, int)]


def _number(directory: TiffImagePlugin.ImageFileDirectory_v2, tag: int) -> int | None:
    return next(iter(_numbers(directory, tag)), None)


def _jpeg_places(data: bytes) -> Iterator[int]:
    """Yield where JPEG files may begin in a file."""
    place, found = data.find(_JPEG_STARTS[0][:3]), 0
    while place >= 0 and found < _PREVIEWS:
        if data[place : place + 4] in _JPEG_STARTS:
            found += 1
            yield place
        place = data.find(_JPEG_STARTS[0][:3], place + 3)


def _jpeg_size(data: bytes, place: int) -> Size | None:
    """Return the size of a JPEG in a file; None if it is none, or one that Pillow cannot decode."""
    try:
        picture = open_jpeg(data, place)
    except DAMAGED:
        return None
    return picture.size if picture.tile and picture.bits == 8 else None
