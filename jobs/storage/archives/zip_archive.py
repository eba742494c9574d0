"""Zip archives as a file system, whose index is in memory only once, and may not be too long."""

import errno
import zipfile
from collections.abc import Iterator
from operator import attrgetter
from typing import IO, Any
from zipfile import BadZipFile, ZipInfo

import fsspec
from fsspec.implementations.zip import ZipFileSystem

from captioner.jobs.errors import UsageError

MAX_INDEX = 64 * 1024 * 1024  # bytes; a member has about 100, and takes 600 once it is read


class ZipArchive(ZipFileSystem):  # type: ignore[misc]  # fsspec has no types
    """A zip archive without fsspec's copy of its index, which would take twice as much again.

    UsageError if the index is too long.
    """

    def __init__(
        self, fo: Any = "", target_protocol: str | None = None, target_options: Any = None
    ) -> None:
        if isinstance(fo, str):
            fo = fsspec.open(fo, "rb", protocol=target_protocol, **(target_options or {}))
            with fo as file:
                _check_index(fo.path, file)
        else:
            _check_index(str(getattr(fo, "path", "the archive")), fo)
        try:
            super().__init__(fo)
        except BadZipFile as error:
            error.args = (f"{error}: it may be cut, so copy it again",)
            raise
        except UnicodeDecodeError as error:
            raise BadZipFile(
                "the name of a member is not UTF-8, as the archive says it is: pack it again"
            ) from error

    def entries(self, folder: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield the names and infos of all files below a folder, "" for all, in their order.

        Of those with the same name, the last one is opened.
        """
        start = f"{folder}/" if folder else ""
        found = [each for each in self.zip.infolist() if each.filename.startswith(start)]
        for member in sorted(found, key=attrgetter("filename")):
            if not member.is_dir():
                yield member.filename, _info(member)

    def _open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        if not self.isfile(path):
            raise no_member(path)
        return super()._open(path, mode, **options)

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """Return what the index says of a member, or of a folder of members."""
        name = self._strip_protocol(path)
        try:
            return _info(self.zip.getinfo(name))
        except KeyError as error:
            start = f"{name}/" if name else ""
            if any(member.startswith(start) for member in self.zip.NameToInfo):
                return {"name": name, "size": 0, "type": "directory"}
            raise no_member(name) from error


def no_member(name: str) -> FileNotFoundError:
    """Return the error for a member that an archive does not have."""
    what = f"the archive has no file {name}" if name else "the URI names no member of the archive"
    return FileNotFoundError(errno.ENOENT, what)


def _info(member: ZipInfo) -> dict[str, Any]:
    """Return what fsspec's own listing says of a member, as far as it is used."""
    names = ("orig_filename", "external_attr", "flag_bits", "CRC")
    info = {name: getattr(member, name) for name in names}
    kind = "directory" if member.is_dir() else "file"
    return info | {"name": member.filename, "size": member.file_size, "type": kind}


def _check_index(archive: str, file: IO[bytes]) -> None:
    """Raise UsageError if the index of an archive is too long to be read into memory."""
    if (size := _index_bytes(file)) > MAX_INDEX:
        raise UsageError(
            f"the index of {archive} has {size} bytes, and the limit is {MAX_INDEX}: divide the "
            "archive, or make it a tar archive"
        )


def _index_bytes(file: IO[bytes]) -> int:
    """Return the bytes of the index, as zipfile will read it; 0 if it is no zip archive."""
    end = zipfile._EndRecData(file)  # type: ignore[attr-defined]  # or another place would be found
    size = int(end[zipfile._ECD_SIZE]) if end else 0  # type: ignore[attr-defined]
    return size if size < file.seek(0, 2) else 0
