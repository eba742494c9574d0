"""Answers that are compressed though nobody asked for it: unpacked, and whole.

aiohttp unpacks them, too, but does not notice that one in gzip ends too early.
"""

import zlib
from http import HTTPStatus
from typing import Any

import aiohttp

from captioner.jobs.errors import FetchError
from captioner.schemas.caption_table import Status

PART = 64 * 1024  # bytes that are unpacked at a time
_ZLIB = ("gzip", "x-gzip", "deflate")
_OTHERS = ("br", "zstd", "compress", "x-compress", "dcb", "dcz")
_EITHER = zlib.MAX_WBITS + 32  # the header of zlib or of gzip
_HEADERS = (0x8, 0xF)  # the low half of the first byte of either, with which raw data never begins
_PACKED_FILES = (".gz", ".tgz")  # which some servers declare to be compressed, as they are


class UnpackedResponse(aiohttp.ClientResponse):
    """An answer whose content is unpacked as it is read.

    FetchError if that is not possible, OSError if the content ends too early.
    """

    async def start(self, connection: Any) -> "UnpackedResponse":
        await super().start(connection)
        encoding = self.headers.get("Content-Encoding", "").strip().lower()
        if encoding in _ZLIB and not self._is_of_a_packed_file():
            self.content = _Unpacked(self.content, encoding)  # type: ignore[assignment]
        elif encoding in _OTHERS or "," in encoding:
            text = f"the answer is compressed by {encoding}, which was not asked for"
            raise FetchError(Status.FETCH_FAILED, text)
        return self

    def _is_of_a_packed_file(self) -> bool:
        """Return whether the file itself is compressed, or this may be its middle."""
        is_part = self.status == HTTPStatus.PARTIAL_CONTENT
        return is_part or self.url.path.lower().endswith(_PACKED_FILES)


class _Unpacked:
    """A stream whose bytes are unpacked; all else is that of the stream."""

    def __init__(self, stream: aiohttp.StreamReader, encoding: str) -> None:
        self._stream, self._encoding = stream, encoding
        self._unpacker: Any = None
        self._packed = b""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    async def read(self, size: int = -1) -> bytes:
        """Return up to `size` bytes, all that are left without a size, b"" at the end."""
        if size >= 0:
            return await self._some(size)
        parts = []
        while part := await self._some(PART):
            parts.append(part)
        return b"".join(parts)

    async def _some(self, size: int) -> bytes:
        part = b""
        while size and not part:
            self._packed = self._packed or await self._stream.read(PART)
            is_over = not self._packed
            if not is_over or self._is_within:
                part = self._unpack(size)  # some may be left in the unpacker
            if is_over:
                self._check_end(part)
                break
        return part

    def _unpack(self, size: int) -> bytes:
        if self._unpacker is None or self._unpacker.eof:  # another member of gzip follows
            is_raw = self._encoding == "deflate" and self._packed[0] & 0xF not in _HEADERS
            self._unpacker = zlib.decompressobj(-zlib.MAX_WBITS if is_raw else _EITHER)
        try:
            part: bytes = self._unpacker.decompress(self._packed, size)
        except zlib.error as error:
            text = f"the answer is not compressed by {self._encoding} as it says"
            raise FetchError(Status.FETCH_FAILED, text) from error
        self._packed = self._unpacker.unused_data or self._unpacker.unconsumed_tail
        return part

    @property
    def _is_within(self) -> bool:
        """Whether a member has begun, and its end has not been found."""
        return self._unpacker is not None and not self._unpacker.eof

    def _check_end(self, last: bytes) -> None:
        if self._is_within and not last:
            raise OSError(f"the answer, compressed by {self._encoding}, ends too early")
