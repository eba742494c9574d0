"""Containers, the files that hold many images: how to open them, and their versions."""

import gzip
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import IO, Any

from fsspec.archive import AbstractArchiveFileSystem

from captioner.jobs.storage.attempts.retry import retried, with_retries
from captioner.jobs.storage.bounded_reads import RemoteFile, bounded
from captioner.jobs.storage.file_types import is_gzipped_archive
from captioner.jobs.storage.filesystems import (
    file_info,
    impatient_filesystem,
    open_copy,
)
from captioner.jobs.storage.http.parts import NoParts
from captioner.jobs.storage.uris import (
    check_regular,
    file_version,
    info_version,
    is_http,
    is_local,
    local_path,
)

READ_AHEAD = 8 * 1024 * 1024  # bytes, of a remote container
BUFFER = 1024 * 1024  # bytes, of a local one


@contextmanager
def open_container(container: str, read_ahead: int = READ_AHEAD) -> Iterator[IO[bytes]]:
    """Open the file at a path or URL, for reading and seeking; FetchError if that fails."""
    if is_local(container):
        check_regular(container)
        with open(local_path(container), "rb", buffering=BUFFER) as file:  # noqa: PTH123
            yield file
    else:
        with with_retries(container, partial(_open_remote, container, read_ahead)) as file:
            yield file


@contextmanager
def open_archive(archive: str) -> Iterator[IO[bytes]]:
    """Open a tar archive; one that has to be decompressed can only be read forwards."""
    with open_container(archive) as file:
        if is_gzipped_archive(archive):
            with gzip.GzipFile(fileobj=file) as unpacked:
                yield unpacked  # type: ignore[misc]  # typeshed does not count a GzipFile as IO
        else:
            yield file


def container_version(container: str) -> str | None:
    """Return the ETag, or else time and size, None if unknown; FetchError if the file is gone."""
    return with_retries(container, partial(_version, container))


def _open_remote(container: str, read_ahead: int) -> IO[bytes]:
    """Open a remote file that reads ahead, or a copy if the store only gives whole files."""
    fs, path = impatient_filesystem(container)
    if isinstance(fs, AbstractArchiveFileSystem):
        return open_copy(container)
    file = bounded(fs.open(path, "rb", block_size=read_ahead, cache_type="readahead"))
    if is_http(container) and not _gives_ranges(file):
        file.close()
        return open_copy(container)
    return RetryingFile(file, container)  # type: ignore[return-value]  # typeshed does not count it as IO


def _gives_ranges(file: Any) -> bool:
    """Return whether an HTTP server answers range requests, by making one."""
    from fsspec.implementations.http import HTTPFile

    if not isinstance(file, HTTPFile):
        return False
    try:
        file.cache.fetcher(1, 2)
    except NoParts:
        return False
    return True


class RetryingFile(RemoteFile):
    """A remote file that retries failed reads, so that gzip and pyarrow never see them fail."""

    def __init__(self, file: Any, url: str) -> None:
        super().__init__(file)
        self._url = url

    def read(self, size: int | None = -1, /) -> bytes:
        position = self.tell()
        return retried(lambda _: self._read_at(position, size), self._url)

    def _read_at(self, position: int, size: int | None) -> bytes:
        self.seek(position)
        return super().read(size)


def _version(container: str) -> str | None:
    if not is_local(container):
        return info_version(file_info(container, impatient_filesystem))
    check_regular(container)
    return file_version(os.stat(local_path(container)))  # noqa: PTH116
