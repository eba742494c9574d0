"""The headers of tar archives; each may claim any length."""

import re
import tarfile
from collections.abc import Iterator
from typing import IO, cast

MAX_HEADER = 1024 * 1024  # bytes: of a member's headers, with all that comes before them
MAX_KEYS = 1000  # that an archive sets for all its members
_ENDED = (tarfile.EmptyHeaderError, tarfile.TruncatedHeaderError)  # type: ignore[attr-defined]
_PACKERS = {  # by the bytes with which their files begin
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x04\x22\x4d\x18": "lz4",
}
_LENGTH = re.compile(rb"(\d{1,20}) ")  # of a record
_LONG_NUMBER = re.compile(rb"\d{101}")


class NoEndMarker(tarfile.ReadError):
    """An archive that ends after a member, without the zeros that some tools never write.

    A copy that was cut there has none, either.
    """


def open_tar(file: IO[bytes]) -> tarfile.TarFile:
    """Open an archive to read its `headers`; ReadError for damage."""
    bounded = cast(IO[bytes], _Bounded(file))
    try:
        return tarfile.TarFile(fileobj=bounded, tarinfo=_Header, encoding="utf-8")
    except tarfile.ReadError:
        file.seek(0)
        start = file.read(8)
        if packer := next((_PACKERS[each] for each in _PACKERS if start.startswith(each)), None):
            text = f"it is compressed by {packer}: unpack it, or make it a .tar.gz"
            raise tarfile.ReadError(text) from None
        raise


def headers(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Yield the headers of an archive without keeping them; ReadError for damage.

    NoEndMarker if it ends after a member.
    """
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


def check_end(file: IO[bytes]) -> None:
    """Read on after the last header, where gzip checks all that it has unpacked.

    ReadError if another archive follows.
    """
    while block := file.read(MAX_HEADER):
        if block.strip(b"\0"):
            raise tarfile.ReadError(
                "another archive follows: join them by tar --concatenate, not by cat"
            )


class _Bounded:
    """A file that can be sought in, but whose bytes are read only where they are needed."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self.left = file, MAX_HEADER
        self.holds_records = False  # what is read next
        self.seek, self.tell = file.seek, file.tell
        self.name, self.mode = "", "rb"

    def read(self, size: int) -> bytes:
        self.left -= size
        if self.left < 0:
            raise tarfile.ReadError(f"a header has more than {MAX_HEADER} bytes")
        data = self._file.read(size)
        if self.holds_records:
            self.holds_records = False
            _check_records(data)
        return data


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
        except _ENDED as error:
            file = cast(IO[bytes], tarfile_.fileobj)
            kind = NoEndMarker if file.tell() == tarfile_.offset > 0 else tarfile.ReadError
            raise kind("it ends early") from error
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"a header is damaged: {error}") from error
        except RecursionError as error:
            raise tarfile.ReadError("a member has too many headers") from error

    def _proc_pax(self, tarfile_: tarfile.TarFile) -> tarfile.TarInfo:
        cast(_Bounded, tarfile_.fileobj).holds_records = True
        return super()._proc_pax(tarfile_)  # type: ignore[misc]  # typeshed lacks it


def _check_records(data: bytes) -> None:
    """Raise ReadError unless data are pax records, `length key=value`, and zeros.

    For others, tarfile takes hours and gigabytes in Python before 3.11.10 and 3.12.6; for long
    numbers, as it searches them for the beginning of a record at each digit.
    """
    at = 0
    while at < len(data) and data[at]:
        length = _LENGTH.match(data, at)
        end = at + int(length[1]) if length else at
        if data[at:end][-1:] != b"\n" or data.find(b"=", at, end) < 0:
            raise tarfile.ReadError("a header has a damaged record")
        at = end
    if _LONG_NUMBER.search(data):
        raise tarfile.ReadError("a header has a number of more than 100 digits")
