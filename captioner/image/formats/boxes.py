"""The boxes of a file of the ISO family, such as AVIF and JPEG XL."""

import struct
from collections.abc import Iterator

Box = tuple[bytes, int, int]  # its kind, and where its content begins and ends


def boxes(data: bytes, place: int = 0, end: int | None = None) -> Iterator[Box]:
    """Yield the boxes in a part of a file, but not those within them.

    ValueError or struct.error if they are damaged.
    """
    end = len(data) if end is None else min(end, len(data))
    while place + 8 <= end:
        size, kind = struct.unpack_from(">I4s", data, place)
        first = place + 8
        if size == 1:  # it follows, in 64 bits
            (size,) = struct.unpack_from(">Q", data, first)
            first += 8
        after = place + size if size else end
        if after < first:
            raise ValueError("a box is shorter than its header")
        yield kind, first, after
        place = after
