"""The headers of tar archives; each may claim any length."""

import tarfile
from collections.abc import Iterator
from typing import IO, cast

MAX_HEADER = 1024 * 1024  # bytes: of a member's headers, with all that comes before them
MAX_KEYS = 1000  # that an archive sets for all its members


def open_tar(file: IO[bytes]) -> tarfile.TarFile:
    """Open an archive to read its `headers`."""
    bounded = cast(IO[bytes], _Bounded(file))
    return tarfile.TarFile(fileobj=bounded, tarinfo=_Header, encoding="utf-8")


def headers(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Yield the headers of an archive without keeping them; ReadError for damage."""
    bounded = cast(_Bounded, tar.fileobj)
    end = -1
    while header := tar.next():
        tar.members.clear()  # type: ignore[attr-defined]  # or it would keep them all
        if header.size < 0 or header.offset <= end:
            raise tarfile.ReadError(f"the header at byte {header.offset} has a wrong size")
        if len(header.pax_headers) > MAX_KEYS:
            raise tarfile.ReadError(f"there are more than {MAX_KEYS} keys for all members")
        end = header.offset
        bounded.left = MAX_HEADER
        yield header
        bounded.left = MAX_HEADER


class _Bounded:
    """A file that can be sought in, but whose bytes are read only where they are needed."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self.left = file, MAX_HEADER
        self.seek, self.tell = file.seek, file.tell
        self.name, self.mode = "", "rb"

    def read(self, size: int) -> bytes:
        self.left -= size
        if self.left < 0:
            raise tarfile.ReadError(f"a header has more than {MAX_HEADER} bytes")
        return self._file.read(size)


class _Header(tarfile.TarInfo):
    """A header that raises ReadError if it is damaged.

    TarFile.next would take a damaged header after the first for the end of the archive.
    """

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> "_Header":
        try:
            return super().fromtarfile(tarfile_)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]  # the zeros at the end
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(str(error)) from error
