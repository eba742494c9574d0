"""URIs of images: absolute paths on this machine, or URLs that fsspec opens.

A URL may be a chain: `zip://a/b.jpg::/data/x.zip` names a file in an archive. On a disk and in a
store `::` is part of a name. Except in HTTP, `%`, `#`, `?` and the like are characters of a name.
"""

import os
import posixpath
import re
import stat
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes, urljoin, urlsplit

_SCHEME = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*)://")
_PASSWORD = re.compile(rf"{_SCHEME.pattern}[^/:]*:[^/]+@")
_USER = re.compile(r"https?://[^/?#]*@", re.IGNORECASE)  # whose name may be a token
ARCHIVES = ("zip", "tar")  # followed by the name of a member, not by a host
STANDARD_INPUT = "-"  # as SOURCE, or as a list of images
_FILE_URL = "file://"
_HTTP = ("http", "https")
_UNCHAINED = (None, "file", "s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", *_HTTP)

# The names that stores use for the tag of an object's content, and for its last change.
_TAGS = ("ETag", "etag")
_TIMES = ("mtime", "LastModified", "Last-Modified", "last_modified", "updated", "modify", "created")


def scheme(uri: str) -> str | None:
    """Return the scheme of a URL in lower case; None for a path."""
    match = _SCHEME.match(uri)
    return match[1].lower() if match else None


def is_local(uri: str) -> bool:
    """Return whether a URI is a path or a file:// URL."""
    return scheme(uri) in (None, "file")


def is_http(uri: str) -> bool:
    return scheme(uri) in _HTTP


def scheme_with_password(url: str) -> str | None:
    """Return the scheme of a part of a URL that has `user:password@`; None if no part has one.

    In HTTP a user alone counts, too.
    """
    parts = (part for part in url.split("::") if scheme(part) not in (*ARCHIVES, "file"))
    return next((scheme(part) for part in parts if _has_password(part)), None)


def _has_password(url: str) -> bool:
    return (_USER if is_http(url) else _PASSWORD).match(url) is not None


def without_user(url: str) -> str:
    """Return an HTTP URL, or a chain with one, without the user and password before its host."""
    inner, container = split_chain(url)
    if container:
        return f"{inner}::{without_user(container[2:])}"
    return _USER.sub(f"{scheme(url)}://", url, count=1) if is_http(url) else url


def local_path(uri: str) -> str:
    """Return the path that a path or a file:// URL names."""
    if scheme(uri) is None:
        return uri
    without_host = re.sub(r"^[^/]*", "", uri[len(_FILE_URL) :])
    return os.fsdecode(unquote_to_bytes(without_host))


def is_chain(url: str) -> bool:
    """Return whether a URL names something inside an archive or the like."""
    return "::" in url and scheme(url) not in _UNCHAINED


def split_chain(url: str) -> tuple[str, str]:
    """Split a URI before the `::` of a chain; the second part is "" if it is not a chain."""
    inner, chain, container = url.partition("::") if is_chain(url) else (url, "", "")
    return inner, chain + container


def file_name(uri: str) -> str:
    """Return the last part of a path or URL, without an HTTP query."""
    inner, _ = split_chain(uri)
    path = urlsplit(inner).path if is_http(uri) else inner
    return path.rstrip("/").rpartition("/")[2]


def parent_folder(uri: str) -> str:
    """Return the folder of a file."""
    if is_local(uri):
        return os.path.dirname(uri)  # noqa: PTH120
    inner, container = split_chain(uri)
    if is_http(inner):
        return urljoin(inner, ".").rstrip("/")
    top, path = inner.split("://", 1)
    return f"{top}://{posixpath.dirname(path)}{container}"


def below(folder: str, name: str) -> str:
    """Return the path or URL of `name` in a folder."""
    if is_local(folder):
        return os.path.join(folder, name)  # noqa: PTH118
    inner, container = split_chain(folder)
    return f"{inner}{'' if inner.endswith('/') else '/'}{name}{container}"


def name_below(uri: str, folder: str) -> str:
    """Return the name, relative to a folder, of a file below it: the inverse of `below`."""
    inner, container = split_chain(folder)
    return uri.removesuffix(container).removeprefix(inner).lstrip("/")


def path_below(uri: str, folder: str) -> str:
    """Return the path of a URI relative to a folder or, elsewhere, to its disk, bucket or host."""
    inner, _ = split_chain(folder)
    if uri.startswith(f"{inner.rstrip('/')}/"):
        return name_below(uri, folder)
    inner, _ = split_chain(uri)
    if is_http(inner):
        return urlsplit(inner).path.lstrip("/")
    has_bucket = not is_local(inner) and scheme(inner) not in ARCHIVES
    path = inner.partition("://")[2] or inner
    return path.partition("/")[2] if has_bucket else path.lstrip("/")


def image_uri(name: str, folder: str = "") -> str:
    """Return the key of an image named in a source; a relative path is relative to `folder`.

    Local files become absolute paths, with symbolic links unresolved; a path that is not valid
    UTF-8, which no table can hold, becomes a file:// URL. URLs stay as given, except that their
    schemes are in lower case, and that in a chain the archive is named in the same way.
    """
    if not is_local(name):
        inner, container = split_chain(name)
        inner = _SCHEME.sub(lambda match: match[0].lower(), inner, count=1)
        archive = container.removeprefix("::") and image_uri(container[2:], folder)
        return f"{inner}::{archive}" if container else inner
    if scheme(name) is None and not is_local(folder):
        return _joined(folder, name)
    path = os.path.abspath(os.path.join(folder, local_path(name)))  # noqa: PTH100, PTH118
    try:
        path.encode()
    except UnicodeEncodeError:
        return Path(path).as_uri()
    return path


def name_in(cell: object) -> str | None:
    """Return the path or URL in a cell, which may be in bytes, without the blanks around it."""
    text = os.fsdecode(cell) if isinstance(cell, bytes) else cell
    return text.strip() or None if isinstance(text, str) else None


def listed_uri(name: str, folder: str) -> str:
    """Return the key of an image that a list names, perhaps with blanks around its name.

    They are part of the name only if there is a file of that name.
    """
    stripped = name.strip()
    if stripped != name and is_local(name):
        path = image_uri(name, folder)
        if is_local(path) and os.path.lexists(local_path(path)):
            return path
    return image_uri(stripped, folder)


def _joined(folder: str, name: str) -> str:
    """Return the URL of `name` in a remote folder; outside HTTP, absolute paths are local."""
    if is_http(folder):
        return urljoin(f"{folder}/", name if name.startswith("/") else f"./{name}")
    if name.startswith("/"):
        return image_uri(name)
    inner, container = split_chain(folder)
    top, path = inner.split("://", 1)
    return f"{top}://{posixpath.normpath(posixpath.join(path, name))}{container}"


def image_version(uri: str) -> str | None:
    """Return the version of a local file; None if it is missing, and for URLs."""
    return path_version(local_path(uri)) if is_local(uri) else None


def path_version(path: str) -> str | None:
    """Return the version of a file; None if it is missing."""
    try:
        return file_version(os.stat(path))  # noqa: PTH116
    except (OSError, ValueError):  # ValueError: a null byte in the name
        return None


def check_regular(uri: str) -> None:
    """Raise OSError if a URI, or the archive that it is in, is of this machine and no regular file.

    To open a pipe could block for ever.
    """
    while is_chain(uri):
        uri = split_chain(uri)[1].removeprefix("::")
    if is_local(uri) and not stat.S_ISREG(os.stat(local_path(uri)).st_mode):  # noqa: PTH116
        raise OSError("not a regular file")


def file_version(status: os.stat_result) -> str:
    """Return "<modification time in ns>-<size>", which changes when the file does."""
    return f"{status.st_mtime_ns}-{status.st_size}"


def info_version(info: Mapping[str, Any]) -> str | None:
    """Return the version of a remote file from what fsspec's `info` or `ls` gives for it.

    It is the ETag, or else the size with a zip archive's checksum or the time; None if unknown.
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
