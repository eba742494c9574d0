"""The size of the pictures that are coded in an AVIF file, whatever its boxes say.

libavif decodes them whole, and then shrinks them to the size in the boxes.
"""

import struct
from collections.abc import Iterator
from itertools import islice

from captioner.image.formats.boxes import Box, boxes

_FOLDERS = {b"meta": 4, b"moov": 0, b"trak": 0, b"mdia": 0, b"minf": 0, b"stbl": 0}
_CHUNKS = {b"stco": 4, b"co64": 8}  # bytes of an offset
_MOST = 10_000  # boxes, items and chunks that are looked at
_START = 4096  # bytes of a coded picture in which its size is looked for
_SEQUENCE_HEADER = 1


def coded_pixels(data: bytes) -> int:
    """Return the pixels of the largest picture in an AVIF file, 0 if that is not known."""
    try:
        found = {kind: (first, end) for kind, first, end in islice(_leaves(data), _MOST)}
        starts = (*_item_starts(data, found), *_chunk_starts(data, found))
        return max(map(_pixels, starts), default=0)
    except (struct.error, IndexError, ValueError, RecursionError):
        return 0


def _leaves(data: bytes, first: int = 0, end: int | None = None) -> Iterator[Box]:
    """Yield the boxes that have no boxes in them."""
    for kind, start, after in boxes(data, first, end):
        if kind in _FOLDERS:
            yield from _leaves(data, start + _FOLDERS[kind], after)
        else:
            yield kind, start, after


def _item_starts(data: bytes, found: dict[bytes, tuple[int, int]]) -> Iterator[bytes]:
    """Yield the beginnings of the items of a file, by their extents."""
    if b"iloc" not in found:
        return
    numbers = _Numbers(data, found[b"iloc"][0])
    version = numbers.take(4) >> 24
    sizes = numbers.take(2)
    offset, length, base, index = (sizes >> shift & 15 for shift in (12, 8, 4, 0))
    for _ in range(min(numbers.take(2 if version < 2 else 4), _MOST)):
        numbers.take(2 if version < 2 else 4)
        is_inside = version > 0 and numbers.take(2) & 15 == 1
        numbers.take(2)
        start = numbers.take(base) + (found.get(b"idat", (0, 0))[0] if is_inside else 0)
        item = b""
        for _ in range(numbers.take(2)):
            numbers.take(index if version > 0 else 0)
            place, size = start + numbers.take(offset), numbers.take(length)
            item += data[place : place + (size or _START)][: _START - len(item)]
        yield item


def _chunk_starts(data: bytes, found: dict[bytes, tuple[int, int]]) -> Iterator[bytes]:
    """Yield the beginnings of the chunks of a track."""
    for kind, size in _CHUNKS.items():
        if kind in found:
            numbers = _Numbers(data, found[kind][0] + 4)
            for _ in range(min(numbers.take(4), _MOST)):
                place = numbers.take(size)
                yield data[place : place + _START]


class _Numbers:
    """Big-endian numbers of any length, one after the other."""

    def __init__(self, data: bytes, place: int) -> None:
        self._data, self._place = data, place

    def take(self, size: int) -> int:
        self._place += size
        if self._place > len(self._data):
            raise ValueError("the box ends early")
        return int.from_bytes(self._data[self._place - size : self._place], "big")


def _pixels(start: bytes) -> int:
    """Return the pixels of a picture by its sequence header, 0 if there is none at its start."""
    place = 0
    while place < len(start):
        head = start[place]
        place += 2 if head & 4 else 1
        size, place = _length(start, place) if head & 2 else (len(start) - place, place)
        if head >> 3 == _SEQUENCE_HEADER:
            return _Bits(start[place : place + size]).pixels()
        place += size
    return 0


def _length(data: bytes, place: int) -> tuple[int, int]:
    """Return a number in LEB128, and the place after it."""
    value = 0
    for shift in range(0, 56, 7):
        value |= (data[place + shift // 7] & 127) << shift
        if data[place + shift // 7] < 128:
            return value, place + shift // 7 + 1
    raise ValueError("a length of more than 8 bytes")


class _Bits:
    """The bits of a sequence header, the highest first."""

    def __init__(self, data: bytes) -> None:
        self._bits, self._left = int.from_bytes(data, "big"), 8 * len(data)

    def pixels(self) -> int:
        """Return the pixels of the largest frame."""
        self._take(4)  # profile, still picture
        if self._take(1):  # a reduced header
            self._take(5)
        else:
            self._skip_operating_points(self._timing())
        sides = self._take(4) + 1, self._take(4) + 1
        return (self._take(sides[0]) + 1) * (self._take(sides[1]) + 1)

    def _timing(self) -> int:
        """Return the length of the delays in a model of the decoder, 0 without one."""
        if not self._take(1):
            return 0
        self._take(64)
        if self._take(1):  # a number that has as many zeros before it as bits
            zeros = next((count for count in range(32) if self._take(1)), 32)
            self._take(zeros)
        if not self._take(1):
            return 0
        delay = self._take(5) + 1
        self._take(42)
        return delay

    def _skip_operating_points(self, delay: int) -> None:
        has_display_delay = self._take(1)
        for _ in range(self._take(5) + 1):
            self._take(12)
            if self._take(5) > 7:
                self._take(1)
            if delay and self._take(1):
                self._take(2 * delay + 1)
            if has_display_delay and self._take(1):
                self._take(4)

    def _take(self, count: int) -> int:
        self._left -= count
        if self._left < 0:
            raise ValueError("the header ends early")
        return self._bits >> self._left & ((1 << count) - 1)
