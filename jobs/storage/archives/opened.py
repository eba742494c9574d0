"""Archives as file systems: each is opened once, and read by one thread at a time."""

import functools
import threading
import zipfile
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

from fsspec.archive import AbstractArchiveFileSystem
from fsspec.utils import infer_compression

from captioner.jobs.storage.archives.tar_archive import TarArchive
from captioner.jobs.storage.archives.zip_archive import ZipArchive
from captioner.jobs.storage.bounded_reads import bounded
from captioner.jobs.storage.file_types import is_gzipped_archive
from captioner.jobs.storage.http.parts import NoParts
from captioner.jobs.storage.uris import file_name, is_local

BLOCK = 1024 * 1024  # bytes of a remote archive that are read at a time
Find = Callable[[str], tuple[Any, str]]


def archive_lock(fs: Any) -> AbstractContextManager[Any]:
    """Return the lock to hold while an archive is read, which has one position; else, none.

    An archive within another has the lock of that one. Others are read meanwhile.
    """
    is_archive = isinstance(fs, AbstractArchiveFileSystem)
    return cast(AbstractContextManager[Any], fs.lock) if is_archive else nullcontext()


class _Archive:
    """An archive that is opened once: fsspec would read its index again for each of its files."""

    def __init__(self, protocol: str, place: str) -> None:
        self._protocol, self._place = protocol, place
        self._opening = threading.Lock()
        self._fs: Any = None

    def open(self, find: Find) -> Any:
        """Return its file system, opened at a path, or at a URL that `find` opens."""
        with self._opening:
            if self._fs is None:
                self._fs = self._opened(find)
            return self._fs

    def _opened(self, find: Find) -> Any:
        if is_local(self._place):
            fs = self._filesystem(self._place, target_protocol="file")
            fs.lock = threading.RLock()
            return fs
        outer, path = find(self._place)
        with archive_lock(outer):
            try:
                file = bounded(outer.open(path, "rb", block_size=BLOCK))
                if getattr(file, "size", 0) is None:  # a stream of HTTP, as of a compressed answer
                    raise NoParts
                fs = self._filesystem(file)
            except zipfile.BadZipFile as error:
                hidden = error.__context__
                if isinstance(hidden, OSError):  # of the store: for zipfile, it is damage
                    raise hidden from hidden.__cause__
                raise
        fs.lock = outer.lock if isinstance(outer, AbstractArchiveFileSystem) else threading.RLock()
        return fs

    def _filesystem(self, file: Any, **options: str | None) -> Any:
        if self._protocol == "tar":
            gzipped = "gzip" if is_gzipped_archive(self._place) else None
            options["compression"] = gzipped or infer_compression(file_name(self._place))
            return TarArchive(file, **options)
        return ZipArchive(file, **options)


archive_of = functools.lru_cache(maxsize=4)(_Archive)  # by protocol, and path or URL
