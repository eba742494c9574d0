"""Remote stores, by URL, through fsspec: their options, their file systems, their files.

Options (`storage_options` of a job) may be secrets: they are kept only in fsspec's configuration,
and `failures.reason` removes them from the messages of stores.
"""

import functools
import io
import pkgutil
import tempfile
import threading
import warnings
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO, cast

import fsspec
from fsspec.config import conf
from fsspec.core import url_to_fs

from captioner.jobs.errors import MachineFault, UsageError
from captioner.jobs.storage.archives.opened import archive_lock, archive_of
from captioner.jobs.storage.attempts.hosts import forget_hosts
from captioner.jobs.storage.bounded_reads import PacedCopy, PacedStream
from captioner.jobs.storage.failures import reading_errors
from captioner.jobs.storage.http.access import (
    AccessRules,
    check_own,
    set_access_rules,
    without_headers,
)
from captioner.jobs.storage.uris import (
    ARCHIVES,
    check_regular,
    is_chain,
    is_http,
    is_local,
    local_path,
    scheme,
    split_chain,
)

StorageOptions = Mapping[str, Mapping[str, Any]]  # by protocol
FindFileSystem = Callable[[str], tuple[Any, str]]
HTTP_CONNECT_SECONDS = 10
BUFFER_BYTES = 128 * 1024
HTTP_READ_SECONDS = 30  # without a single byte
COPY_SECONDS = 120.0  # in which a file must progress that is read or copied (attempts/pace.py)
S3_CONNECTIONS = 64  # at once; botocore would have ten
EXTRAS = {
    **dict.fromkeys(("s3", "s3a"), "s3"),
    **dict.fromkeys(("gs", "gcs"), "gs"),
    **dict.fromkeys(("az", "abfs", "abfss", "adl"), "az"),
    **dict.fromkeys(("http", "https"), "http"),
}

_S3_STORE = "captioner.jobs.storage.s3_filesystem.S3Store"  # imported when it is used
for _protocol in ("s3", "s3a"):
    fsspec.register_implementation(_protocol, _S3_STORE, clobber=True, errtxt="install s3fs")
    if _protocol in fsspec.registry:  # this program has used the class of s3fs
        _store = pkgutil.resolve_name(_S3_STORE)
        fsspec.register_implementation(_protocol, _store, clobber=True)

_instances_lock = threading.Lock()  # or threads that begin together would open several
_own: dict[str, Any] = {}  # tables of fsspec's own configuration that were replaced here, or None


def configure(options: StorageOptions, rules: AccessRules | None = None) -> None:
    """Set the options of the file systems that this process opens from now on.

    The headers of HTTP are a matter of the `rules`, which say for which hosts they are; without new
    rules, the former ones stay. What was known of hosts is forgotten: now they may answer.
    """
    if rules is not None:
        set_access_rules(rules)
    forget_hosts()
    while _own:
        protocol, table = _own.popitem()
        conf.pop(protocol, None)
        conf.update({} if table is None else {protocol: table})
    for protocol, values in without_headers(options).items():
        _add_options(protocol, values)
    archive_of.cache_clear()


def _add_options(protocol: str, values: Mapping[str, Any]) -> None:
    table = conf.get(protocol)
    _own.setdefault(protocol, table)
    conf[protocol] = {**(table or {}), **values}


def filesystem(url: str, **options: Any) -> tuple[Any, str]:
    """Return the file system of a URL, and the path in it; UsageError if no package opens it.

    The options win over those of the job; in chains, there are none.
    """
    require_packages(url)
    inner, container = split_chain(url)
    if scheme(inner) in ARCHIVES and container in ("", "::"):
        raise UsageError(f"{url} names no archive: write {scheme(inner)}://MEMBER::ARCHIVE")
    if any(is_http(part) for part in url.split("::")):
        check_own(conf)  # that of a job has lost its headers
        _set_http_timeouts()
    if not container:
        fs, _ = url_to_fs(
            url.partition("::")[0], **options
        )  # fsspec would mistake all of it for a chain
        return fs, fs._strip_protocol(url)
    outer = local_path(container[2:]) if is_local(container[2:]) else container[2:]
    if scheme(inner) not in ARCHIVES:
        return cast(tuple[Any, str], url_to_fs(f"{inner}::{outer}"))
    check_regular(url)
    fs = archive_of(scheme(inner) or "", outer).open(filesystem)
    return fs, fs._strip_protocol(inner)


def impatient_filesystem(url: str) -> tuple[Any, str]:
    """Return the same, except that each request is sent once: storage/attempts does the rest.

    The packages of stores retry many times, each in its own way; together that was 74 requests for
    one object. What a job sets itself in `config_kwargs` stays.
    """
    if is_chain(url):
        return filesystem(url)
    with _instances_lock:
        return _impatient(url)


def _impatient(url: str) -> tuple[Any, str]:
    protocol = scheme(url)
    if protocol not in EXTRAS or is_http(url):
        return filesystem(url)
    options: dict[str, Any] = {"sent_once": True}  # an instance of its own
    if EXTRAS[protocol] == "s3":
        own = {**conf.get("s3", {}), **conf.get("s3a", {})}.get("config_kwargs", {})
        retries = {"total_max_attempts": 1}
        options = {
            "config_kwargs": {"retries": retries, "max_pool_connections": S3_CONNECTIONS, **own}
        }
    fs, path = filesystem(url, **options)
    _send_once(fs, EXTRAS[protocol])
    return fs, path


def _send_once(fs: Any, package: str) -> None:
    """Switch off what the packages offer no option for; warn of one that does it otherwise."""
    request = getattr(getattr(type(fs), "_request", None), "__wrapped__", None)
    if package == "s3" and hasattr(fs, "retries"):
        fs.retries = 1
    elif package == "az" and hasattr(fs, "_timeout_kwargs"):
        fs._timeout_kwargs.setdefault("retry_total", 0)  # for each request
    elif package == "gs" and request is not None:
        fs._request = functools.partial(request, fs)
    else:
        text = f"{type(fs).__module__} of this version may retry requests, beside our own retries"
        warnings.warn(text, RuntimeWarning, stacklevel=2)


def _set_http_timeouts() -> None:
    """Time out silent downloads, where aiohttp would end any that takes five minutes."""
    from aiohttp import ClientTimeout

    from captioner.jobs.storage.http.client import guarded_client

    timeout = ClientTimeout(
        total=None, sock_connect=HTTP_CONNECT_SECONDS, sock_read=HTTP_READ_SECONDS
    )
    _add_options("http", {"get_client": guarded_client})
    # http and https share a file system, in which the options of https replace the others.
    for protocol in ("http", "https"):
        client = conf.get(protocol, {}).get("client_kwargs")
        if protocol == "http" or client is not None:
            _add_options(protocol, {"client_kwargs": {"timeout": timeout, **(client or {})}})


def require_packages(url: str) -> None:
    """Raise UsageError that says what to install if a package for a URL is missing."""
    for part in url.split("::"):
        protocol = scheme(part)
        if protocol == "libarchive":
            raise UsageError("libarchive:// is not supported: give zip or tar archives instead")
        try:
            fsspec.get_filesystem_class(protocol or "file")
        except ImportError as error:
            extra = EXTRAS.get(protocol or "")
            remedy = f"pip install 'captioner[{extra}]'" if extra else str(error)
            raise UsageError(f"{protocol}:// needs a package: {remedy}") from error
        except ValueError as error:
            raise UsageError(f"nothing can open {protocol}://: {error}") from error


def file_info(url: str, find: FindFileSystem = filesystem) -> Mapping[str, Any]:
    """Return the info of a file; raise the error of an HTTP server that fsspec hides."""
    fs, path = find(url)
    try:
        info: Mapping[str, Any] = fs.info(path)
    except FileNotFoundError as error:
        hidden = error.__cause__  # any failure of HTTP
        if isinstance(hidden, Exception) and is_http(url):
            raise hidden from None
        raise
    return info


def open_stream(url: str) -> io.BufferedReader:
    """Open a remote file to read it once; TemporaryError for a transient failure, else OSError."""
    with reading_errors(url):
        fs, path = filesystem(url)
        # Not every HTTP server knows range requests.
        file = fs.open(path, "rb", **({"block_size": 0} if is_http(url) else {}))
    return io.BufferedReader(PacedStream(url, file, COPY_SECONDS), BUFFER_BYTES)


def open_copy(url: str) -> BinaryIO:
    """Open a temporary copy of a remote file; MachineFault if there is no folder for it."""
    fs, path = filesystem(url)
    try:
        file = tempfile.TemporaryFile()  # noqa: SIM115
    except OSError as error:
        raise MachineFault(error) from error
    with archive_lock(fs):
        fs.get_file(path, file, callback=PacedCopy(COPY_SECONDS))
    file.seek(0)
    return cast(BinaryIO, file)
