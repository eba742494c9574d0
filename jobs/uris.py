"""What names an image: an absolute path of this machine, or a URL."""

import os
import re
from pathlib import Path
from urllib.parse import unquote_to_bytes

_SCHEME = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*)://")
_FILE_URL = "file://"


def scheme(uri: str) -> str | None:
    """The scheme of a URL, lower case; None for a path."""
    match = _SCHEME.match(uri)
    return match[1].lower() if match else None


def is_local(uri: str) -> bool:
    """Whether `uri` is a path or a file:// URL."""
    return scheme(uri) in (None, "file")


def local_path(uri: str) -> str:
    """The path of a path or of a file:// URL."""
    if scheme(uri) is None:
        return uri
    without_host = re.sub(r"^[^/]*", "", uri[len(_FILE_URL) :])
    return os.fsdecode(unquote_to_bytes(without_host))


def image_uri(name: str, folder: str = "") -> str:
    """The key of an image named in a source; a relative path is relative to `folder`.

    Local files become absolute paths, symbolic links unresolved; only a path that is no valid
    UTF-8, which no table can hold, becomes a file:// URL. URLs stay as given.
    """
    if not is_local(name):
        return name
    path = os.path.abspath(os.path.join(folder, local_path(name)))  # noqa: PTH100, PTH118
    try:
        path.encode()
    except UnicodeEncodeError:
        return Path(path).as_uri()
    return path


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
