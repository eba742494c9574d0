"""Remote stores, by URL, through fsspec: their options, their file systems, their failures.

Options (`storage_options` of a job) may be secrets: they are in fsspec's own configuration and
nowhere else, and `reason` takes them out of what stores say.
"""

import copy
import functools
import io
import tempfile
import threading
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any, BinaryIO, cast

import fsspec
from fsspec.archive import AbstractArchiveFileSystem
from fsspec.config import conf
from fsspec.core import url_to_fs

from captioner.jobs.errors import UsageError
from captioner.jobs.storage.failures import store_errors
from captioner.jobs.storage.uris import is_http, is_local, local_path, scheme, split_chain

StorageOptions = Mapping[str, Mapping[str, Any]]  # by protocol
HTTP_CONNECT_SECONDS = 10
BUFFER_BYTES = 128 * 1024
HTTP_READ_SECONDS = 30  # without a single byte
EXTRAS = {
    **dict.fromkeys(("s3", "s3a"), "s3"),
    **dict.fromkeys(("gs", "gcs"), "gs"),
    **dict.fromkeys(("az", "abfs", "abfss", "adl"), "az"),
    **dict.fromkeys(("http", "https"), "http"),
}

# One thread at a time opens archives and reads from them: an archive has one position.
archives_lock = threading.RLock()
_own_conf = copy.deepcopy(conf)  # from the environment and from fsspec's own files


def configure(options: StorageOptions) -> None:
    """Have the file systems of this process that are opened from now on use these options."""
    conf.clear()
    conf.update(copy.deepcopy(_own_conf))
    for protocol, values in options.items():
        conf.setdefault(protocol, {}).update(copy.deepcopy(dict(values)))
    with archives_lock:
        _archive.cache_clear()


def filesystem(url: str) -> tuple[Any, str]:
    """The file system of a URL, and the path that this has in it.

    UsageError if a package that it needs is not installed, or nothing knows the protocol.
    """
    require_packages(url)
    inner, container = split_chain(url)
    if any(is_http(part) for part in url.split("::")):
        _set_http_timeouts()
    if not container:
        fs, _ = url_to_fs(url.partition("::")[0])  # which fsspec would take for a chain
        return fs, fs._strip_protocol(url)
    outer = local_path(container[2:]) if is_local(container[2:]) else container[2:]
    if not issubclass(fsspec.get_filesystem_class(scheme(inner)), AbstractArchiveFileSystem):
        return cast(tuple[Any, str], url_to_fs(f"{inner}::{outer}"))
    with archives_lock:
        archive = _archive(f"{scheme(inner)}://::{outer}")
    return archive, archive._strip_protocol(inner)


@functools.lru_cache(maxsize=4)
def _archive(url: str) -> Any:
    """An archive, which fsspec would open, and read the contents of, for each of its files."""
    return url_to_fs(url)[0]


def _set_http_timeouts() -> None:
    """aiohttp's own would end a long download after five minutes, and a silent one no sooner."""
    from aiohttp import ClientTimeout

    timeout = ClientTimeout(
        total=None, sock_connect=HTTP_CONNECT_SECONDS, sock_read=HTTP_READ_SECONDS
    )
    options = conf.setdefault("http", {})
    # Both are options of one file system, where those of HTTPS replace the others.
    for table in (options, conf.get("https", options)):
        if table is options or "client_kwargs" in table:
            table.setdefault("client_kwargs", {}).setdefault("timeout", timeout)


def require_packages(url: str) -> None:
    """UsageError that says what to install for a URL."""
    for part in url.split("::"):
        protocol = scheme(part)
        try:
            fsspec.get_filesystem_class(protocol or "file")
        except ImportError as error:
            extra = EXTRAS.get(protocol or "")
            remedy = f"pip install 'captioner[{extra}]'" if extra else str(error)
            raise UsageError(f"{protocol}:// needs a package: {remedy}") from error
        except ValueError as error:
            raise UsageError(f"nothing can open {protocol}://: {error}") from error


def file_info(url: str) -> Mapping[str, Any]:
    """What a store tells of a file; of an HTTP server the error, too, which fsspec hides."""
    fs, path = filesystem(url)
    try:
        info: Mapping[str, Any] = fs.info(path)
    except FileNotFoundError as error:
        hidden = error.__cause__  # whatever goes wrong by HTTP
        if isinstance(hidden, Exception) and is_http(url):
            raise hidden from None
        raise
    return info


def open_stream(url: str) -> io.BufferedReader:
    """A remote file, to be read from its beginning to its end.

    OSError if that fails, TemporaryError for faults that may pass.
    """
    with store_errors(url):
        fs, path = filesystem(url)
        # Range requests are not known to every HTTP server.
        file = fs.open(path, "rb", **({"block_size": 0} if is_http(url) else {}))
    return io.BufferedReader(_Reader(url, file), BUFFER_BYTES)


def open_copy(url: str) -> BinaryIO:
    """A temporary copy of a remote file."""
    fs, path = filesystem(url)
    file = tempfile.TemporaryFile()  # noqa: SIM115
    with archives_lock if isinstance(fs, AbstractArchiveFileSystem) else nullcontext():
        fs.get_file(path, file)
    file.seek(0)
    return cast(BinaryIO, file)


class _Reader(io.RawIOBase):
    """A file of fsspec that may give less than asked for, with the errors of `open_stream`."""

    def __init__(self, url: str, file: Any) -> None:
        self.url, self.file = url, file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        with store_errors(self.url):
            data = self.file.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self.file.close()
        super().close()
