"""Tar archives as a file system: their headers are bounded, and so is the index of their members.

fsspec's own reads headers of any length, and keeps all that is in them.
"""

import re
import tarfile
from collections.abc import Iterator
from itertools import chain
from operator import itemgetter
from typing import Any, NamedTuple
from urllib.parse import quote, unquote

import fsspec
from fsspec.archive import AbstractArchiveFileSystem
from fsspec.compression import compr

from captioner.jobs.errors import UsageError
from captioner.jobs.storage.archives.tar_headers import NoEndMarker, check_end, headers, open_tar
from captioner.jobs.storage.archives.zip_archive import no_member
from captioner.jobs.storage.attempts.faults import DAMAGE

MAX_INDEX = 512 * 1024 * 1024  # bytes of memory, about
_MEMBER_BYTES = 500  # beside its name
SPARSE = "stored as a sparse file: pack it without --sparse"


class Member(NamedTuple):
    """A member: its place in the archive, and whether it is a file, a directory or another kind."""

    offset: int
    size: int
    time: float
    kind: str


class TarArchive(AbstractArchiveFileSystem):  # type: ignore[misc]  # fsspec has no types
    """The members of a tar archive; of those with the same name, the last one is opened.

    An archive that is damaged somewhere has the members before that. One without an end marker is
    `cut`, perhaps. UsageError if the index would take too much memory, ReadError if there is no
    member before the damage.
    """

    root_marker = ""
    protocol = "tar"
    cachable = False

    def __init__(
        self, fo: Any, target_protocol: str | None = None, compression: str | None = None
    ) -> None:
        super().__init__()
        self.archive = fo if isinstance(fo, str) else str(getattr(fo, "path", "the archive"))
        if isinstance(fo, str):
            fo = fsspec.open(fo, "rb", protocol=target_protocol).open()
        self.fo = compr[compression](fo) if compression else fo
        self._members: dict[str, Member] = {}
        self._earlier: list[tuple[str, Member]] = []  # with the name of a later one
        self._damage = ""
        self.cut = False
        self._tar = self._read_index()

    def _read_index(self) -> tarfile.TarFile:
        try:
            tar = open_tar(self.fo)
            self._add_members(tar)
            check_end(self.fo)
        except NoEndMarker:
            self.cut = True
        except DAMAGE as error:
            self._damage = str(error) or type(error).__name__
            if not self._members:
                raise
        tar.fileobj = self.fo
        return tar

    def _add_members(self, tar: tarfile.TarFile) -> None:
        left = MAX_INDEX
        for header in headers(tar):
            name = member_name(header.name)
            left -= _MEMBER_BYTES + len(name)
            if left < 0:
                raise UsageError(
                    f"the index of {self.archive} would take more than {MAX_INDEX >> 20} MiB of "
                    "memory: divide the archive"
                )
            if name in self._members:
                self._earlier.append((name, self._members[name]))
            place = header.offset_data, header.size, header.mtime
            self._members[name] = Member(*place, _kind(header))

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        name: str = super()._strip_protocol(path)
        return re.sub("/+", "/", name).lstrip("/")

    def entries(self, folder: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield the names and infos of all members below a folder, "" for all, in their order.

        ReadError if the archive is damaged.
        """
        if self._damage:
            raise self._missing("")
        start = f"{folder}/" if folder else ""
        every = chain(self._earlier, self._members.items())
        found = [entry for entry in every if entry[0].startswith(start)]
        for name, member in sorted(found, key=itemgetter(0)):
            if member.kind != "directory":
                yield name, _info(name, member)

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """Return what is known of a member, or of a folder of members."""
        name = self._strip_protocol(path)
        if member := self._find(name):
            return _info(name, member)
        start = f"{name}/" if name else ""
        if any(member.startswith(start) for member in self._members):
            return {"name": name, "size": 0, "type": "directory"}
        raise self._missing(name)

    def _open(self, path: str, mode: str = "rb", **_: Any) -> Any:
        member = self._find(path)
        if member is None:
            raise self._missing(path)
        if member.kind != "file":
            raise tarfile.ReadError(SPARSE if member.kind == "sparse" else f"a {member.kind}")
        header = tarfile.TarInfo(path)
        header.offset_data, header.size = member.offset, member.size
        return self._tar.extractfile(header)

    def _find(self, name: str) -> Member | None:
        """Return a member by its name in URIs, or else by its own name."""
        return self._members.get(name) or self._members.get(member_name(name))

    def _missing(self, name: str) -> Exception:
        if self._damage:
            return tarfile.ReadError(f"the archive cannot be read to its end: {self._damage}")
        return no_member(name)


def member_name(name: str) -> str:
    """Return the name of a member as URIs have it: `tar://<name>::<archive>`.

    A name that is not UTF-8, which no table can hold, is percent-encoded, and so is one that looks
    as if it were: the URI of the one would be that of the other.
    """
    name = re.sub("/+", "/", name)
    return _encoded(name) if _is_binary(name) or _looks_encoded(name) else name


def _encoded(name: str) -> str:
    return quote(name, errors="surrogateescape")


def _is_binary(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return True
    return False


def _looks_encoded(name: str) -> bool:
    """Return whether `_encoded`, once or more often, makes a name of one that is not UTF-8."""
    again = min(map(len, re.findall("%((?:25)*)", name)), default=0)
    once = name.replace("%" + "25" * (again // 2), "%")
    plain = unquote(once, errors="surrogateescape")
    return _is_binary(plain) and _encoded(plain) == once


def _kind(header: tarfile.TarInfo) -> str:
    if header.isdir():
        return "directory"
    if header.issym() or header.islnk():
        return "link"
    if not header.isreg():
        return "device"
    return "sparse" if header.issparse() else "file"


def _info(name: str, member: Member) -> dict[str, Any]:
    """Return what fsspec's listings say of a file, and its kind."""
    kind = "directory" if member.kind == "directory" else "file"
    info = {"name": name, "size": member.size, "mtime": member.time}
    return info | {"type": kind, "kind": member.kind}
