"""Thrift's compact protocol, as far as footers and headers of Parquet files need it."""

from collections.abc import Iterator
from typing import IO

TRUE, FALSE, BYTE, I16, I32, I64, DOUBLE, BINARY, LIST, SET, _MAP, STRUCT = range(1, 13)
_DEPTH = 32  # of structs and lists


def is_integer(kind: int) -> bool:
    return kind in (I16, I32, I64)


class Thrift:
    """A reader of one struct after another, of at most `limit` bytes; ValueError for damage.

    Structs are fields, each with its type and the difference of its number from that of the field
    before it.
    """

    def __init__(self, file: IO[bytes], limit: int) -> None:
        self._file, self._limit, self.count = file, limit, 0

    def fields(self) -> Iterator[tuple[int, int]]:
        """Yield number and type of a struct's fields; read or skip each value before the next."""
        number = 0
        while head := self._byte():
            number = number + (head >> 4) if head >> 4 else self.integer()
            yield number, head & 15

    def integers(self) -> dict[int, int]:
        """Return the fields of a struct that are integers, by number."""
        found = {}
        for number, kind in self.fields():
            if is_integer(kind):
                found[number] = self.integer()
            else:
                self.skip(kind)
        return found

    def list_head(self) -> tuple[int, int]:
        """Return the number of a list's values, and their type."""
        head = self._byte()
        return (self._varint() if head >> 4 == 15 else head >> 4), head & 15

    def skip(self, kind: int, depth: int = _DEPTH) -> None:
        """Read on to the end of a value."""
        if not depth:
            raise ValueError("a value in it is nested too deeply")
        if is_integer(kind):
            self._varint()
        elif kind == STRUCT:
            for _, of in self.fields():
                self.skip(of, depth - 1)
        elif kind in (LIST, SET):
            self._skip_list(depth - 1)
        elif kind in (BYTE, DOUBLE, BINARY):
            self._bytes(self._varint() if kind == BINARY else 8 if kind == DOUBLE else 1)
        elif kind not in (TRUE, FALSE):
            raise ValueError("a value in it has an unknown type")

    def integer(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)

    def _skip_list(self, depth: int) -> None:
        size, of = self.list_head()
        for _ in range(size):
            self.skip(BYTE if of in (TRUE, FALSE) else of, depth)

    def _varint(self) -> int:
        value = 0
        for shift in range(0, 70, 7):
            byte = self._byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
        raise ValueError("a number in it is too long")

    def _byte(self) -> int:
        return self._bytes(1)[0]

    def _bytes(self, count: int) -> bytes:
        self.count += count
        if self.count > self._limit:
            raise ValueError(f"it has more than {self._limit} bytes")
        data = self._file.read(count)
        if len(data) < count:
            raise ValueError("it ends too early")
        return data
