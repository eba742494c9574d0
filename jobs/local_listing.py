"""A folder of this machine -> its images, in the order of their names."""

import os
from collections.abc import Iterator
from operator import itemgetter

from jobs.selection import UNREADABLE_FOLDERS, Selection
from jobs.uris import file_version, image_uri

Records = Iterator[tuple[str, str | None]]  # uri and version
Identity = tuple[int, int]  # of a folder: device and inode


def local_records(root: str, selection: Selection) -> Records:
    """The images of a selection below a folder.

    Symbolic links are followed, except to a folder that they are in. A folder that cannot be read
    is counted among the skipped.
    """
    try:
        identity = _identity(os.stat(root))  # noqa: PTH116
    except OSError:
        return
    yield from _walk(root, "", (identity,), selection)


def _walk(
    folder: str, prefix: str, ancestors: tuple[Identity, ...], selection: Selection
) -> Records:
    """The images below a folder; `ancestors` are itself and the folders above."""
    try:
        with os.scandir(folder) as entries:
            children = sorted(map(_child, entries), key=itemgetter(0))
    except OSError:
        selection.skipped[UNREADABLE_FOLDERS] += 1
        return
    for _, entry, identity in children:
        name = prefix + entry.name
        if identity is None:
            if selection.takes(name):
                yield image_uri(entry.path), _entry_version(entry)
        elif selection.enters(name):
            if identity in ancestors:
                selection.skipped["links to a folder above"] += 1
            else:
                yield from _walk(entry.path, f"{name}/", (*ancestors, identity), selection)


def _child(entry: os.DirEntry[str]) -> tuple[str, os.DirEntry[str], Identity | None]:
    """What an entry is sorted by, so that whole paths are in order, and a folder's identity."""
    identity = _folder_identity(entry)
    return entry.name if identity is None else f"{entry.name}/", entry, identity


def _folder_identity(entry: os.DirEntry[str]) -> Identity | None:
    """Of a folder or a link to one; None for what is neither."""
    try:
        return _identity(entry.stat()) if entry.is_dir() else None
    except OSError:  # a link to itself, or a folder that has just gone
        return None


def _identity(status: os.stat_result) -> Identity:
    return status.st_dev, status.st_ino


def _entry_version(entry: os.DirEntry[str]) -> str | None:
    try:
        return file_version(entry.stat())
    except OSError:  # a broken link; the row will say not_found
        return None
