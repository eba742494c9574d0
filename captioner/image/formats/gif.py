"""GIF files, whose later frames may lie outside the picture."""

import io
import struct

from PIL import GifImagePlugin

_COLOURS, _SIZE_OF_COLOURS = 0x80, 7  # bits that say whether a table follows, and its size


def gif_size(data: bytes) -> tuple[int, int]:
    """Return the size of a GIF: that of its screen, or more if the first frame lies outside.

    struct.error if it ends before that.
    """
    width, height = struct.unpack_from("<HH", data, 6)
    for place in frame_places(data)[:1]:
        left, top, across, down = struct.unpack_from("<4H", data, place)
        width, height = max(width, left + across), max(height, top + down)
    return width, height


def frame_places(data: bytes) -> list[int]:
    """Return where the first two frames begin, as far as there are any, without their marks."""
    place, found = _after_colours(data, 13, 10), list[int]()
    while place < len(data) and data[place : place + 1] != b";" and len(found) < 2:
        mark = data[place : place + 1]
        place += 1
        if mark == b"!":
            place = _after_blocks(data, place + 1)
        elif mark == b",":
            found.append(place)
            place = _after_blocks(data, _after_colours(data, place + 9, place + 8) + 1)
    return found


def _after_colours(data: bytes, place: int, flags: int) -> int:
    """Return the place after a table of colours at a place, if its flags say that it has one."""
    bits = data[flags] if flags < len(data) else 0
    return place + (3 << (bits & _SIZE_OF_COLOURS) + 1 if bits & _COLOURS else 0)


def _after_blocks(data: bytes, place: int) -> int:
    while place < len(data) and data[place]:
        place += data[place] + 1
    return place + 1


def open_gif(data: bytes) -> "GifOfOneSize":
    """Read the header of a GIF; it has the size of its first frame from then on."""
    picture = GifOfOneSize(io.BytesIO(data), "")
    picture.is_open = True
    return picture


class GifOfOneSize(GifImagePlugin.GifImageFile):
    """A GIF that raises OSError at a frame outside the picture.

    Pillow would enlarge the picture for it, to gigabytes.
    """

    is_open = False
    _only_size: tuple[int, int]

    @property
    def _size(self) -> tuple[int, int]:
        return self._only_size

    @_size.setter
    def _size(self, size: tuple[int, int]) -> None:
        if self.is_open and size != self._only_size:
            raise OSError("damaged: a frame lies outside the picture")
        self._only_size = size
