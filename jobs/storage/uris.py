"""What names an image: an absolute path of this machine, or a URL.

A URL is one that fsspec opens, `zip://a/b.jpg::/data/x.zip` too: what is before `::` is inside of
what is behind it. On a disk and in a store `::` is a part of a name. Outside of HTTP, `%`, `#`, `?`
and the like are characters of a name.
"""

import os
import posixpath
import re
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes, urljoin, urlsplit

_SCHEME = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*)://")
PASSWORD = re.compile(rf"{_SCHEME.pattern}[^/:]*:[^/]+@")
_ARCHIVES = ("zip", "tar", "libarchive")  # in which names of members follow, and no hosts
_FILE_URL = "file://"
_HTTP = ("http", "https")
_UNCHAINED = (None, "file", "s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", *_HTTP)

# What stores call the tag of an object's content, and the time of its last change.
_TAGS = ("ETag", "etag")
_TIMES = ("mtime", "LastModified", "Last-Modified", "last_modified", "updated", "modify", "created")


def scheme(uri: str) -> str | None:
    """The scheme of a URL, lower case; None for a path."""
    match = _SCHEME.match(uri)
    return match[1].lower() if match else None


def is_local(uri: str) -> bool:
    """Whether `uri` is a path or a file:// URL."""
    return scheme(uri) in (None, "file")


def is_http(uri: str) -> bool:
    return scheme(uri) in _HTTP


def scheme_with_password(url: str) -> str | None:
    """The scheme of a URL, or of what it is inside of, with `user:password@`; None without one."""
    parts = (part for part in url.split("::") if scheme(part) not in (*_ARCHIVES, "file"))
    return next((scheme(part) for part in parts if PASSWORD.match(part)), None)


def local_path(uri: str) -> str:
    """The path of a path or of a file:// URL."""
    if scheme(uri) is None:
        return uri
    without_host = re.sub(r"^[^/]*", "", uri[len(_FILE_URL) :])
    return os.fsdecode(unquote_to_bytes(without_host))


def is_chain(url: str) -> bool:
    """Whether a URL names what is inside of something else."""
    return "::" in url and scheme(url) not in _UNCHAINED


def split_chain(url: str) -> tuple[str, str]:
    """What a path or URL names, and what that is inside of with the `::` before it, or ""."""
    inner, chain, container = url.partition("::") if is_chain(url) else (url, "", "")
    return inner, chain + container


def file_name(uri: str) -> str:
    """The last part of a path or a URL, without an HTTP query."""
    inner, _ = split_chain(uri)
    path = urlsplit(inner).path if is_http(uri) else inner
    return path.rstrip("/").rpartition("/")[2]


def parent_folder(uri: str) -> str:
    """The folder of a file."""
    if is_local(uri):
        return os.path.dirname(uri)  # noqa: PTH120
    inner, container = split_chain(uri)
    if is_http(inner):
        return urljoin(inner, ".").rstrip("/")
    top, path = inner.split("://", 1)
    return f"{top}://{posixpath.dirname(path)}{container}"


def below(folder: str, name: str) -> str:
    """The path or URL of what a folder calls `name`."""
    if is_local(folder):
        return os.path.join(folder, name)  # noqa: PTH118
    inner, container = split_chain(folder)
    return f"{inner}{'' if inner.endswith('/') else '/'}{name}{container}"


def name_below(uri: str, folder: str) -> str:
    """What a folder calls a file in it, or in folders in it: the inverse of `below`."""
    inner, container = split_chain(folder)
    return uri.removesuffix(container).removeprefix(inner).lstrip("/")


def image_uri(name: str, folder: str = "") -> str:
    """The key of an image named in a source; a relative path is relative to `folder`.

    Local files become absolute paths, symbolic links unresolved; only a path that is no valid
    UTF-8, which no table can hold, becomes a file:// URL. URLs stay as given, but for a local
    archive that they are inside of.
    """
    if not is_local(name):
        inner, container = split_chain(name)
        return f"{inner}::{image_uri(container[2:], folder)}" if container else name
    if scheme(name) is None and not is_local(folder):
        return _joined(folder, name)
    path = os.path.abspath(os.path.join(folder, local_path(name)))  # noqa: PTH100, PTH118
    try:
        path.encode()
    except UnicodeEncodeError:
        return Path(path).as_uri()
    return path


def _joined(folder: str, name: str) -> str:
    """What a manifest in a remote folder calls `name`; a path outside of HTTP may be absolute."""
    if is_http(folder):
        return urljoin(f"{folder}/", name if name.startswith("/") else f"./{name}")
    if name.startswith("/"):
        return image_uri(name)
    inner, container = split_chain(folder)
    top, path = inner.split("://", 1)
    return f"{top}://{posixpath.normpath(posixpath.join(path, name))}{container}"


def image_version(uri: str) -> str | None:
    """The version of a local file; None if it is missing, and for URLs."""
    if not is_local(uri):
        return None
    try:
        return file_version(os.stat(local_path(uri)))  # noqa: PTH116
    except (OSError, ValueError):  # ValueError: a null byte in the name
        return None


def file_version(status: os.stat_result) -> str:
    """Modification time in ns and size, "<time>-<size>": changes when the file does."""
    return f"{status.st_mtime_ns}-{status.st_size}"


def info_version(info: Mapping[str, Any]) -> str | None:
    """The version of a remote file, of what fsspec's `info` or `ls` gives for it.

    Its ETag, or the checksum of a zip archive and the size, or modification time and size; None
    if the store tells neither.
    """
    tag = next((str(info[key]) for key in _TAGS if info.get(key)), "")
    if tag:
        return tag.removeprefix("W/").strip('"') or None
    size = info.get("size")
    if info.get("CRC") is not None:
        return f"{info['CRC']:08x}-{size}"
    time = next((info[key] for key in _TIMES if info.get(key)), None)
    if time is None:
        return None
    return f"{time.isoformat() if isinstance(time, datetime) else time}-{size}"
