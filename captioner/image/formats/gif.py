"""GIF files, whose later frames may lie outside the picture."""

import io

from PIL import GifImagePlugin


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
