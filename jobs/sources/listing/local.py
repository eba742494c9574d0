"""A folder of this machine -> its images, in the order of their names."""

import errno
import os
from collections.abc import Iterator

from captioner.jobs.sources.listing.filters import UNREADABLE_FOLDERS, Selection
from captioner.jobs.sources.manifests.formats import manifest_kind
from captioner.jobs.storage.file_types import is_archive, is_image_name
from captioner.jobs.storage.uris import file_version, image_uri

Records = Iterator[tuple[str, str | None]]  # uri and version
Identity = tuple[int, int]  # of a folder: device and inode
_NOWHERE = (errno.ENOENT, errno.ENOTDIR)


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
            children = sorted(map(_child, entries))
    except OSError:
        selection.skipped[UNREADABLE_FOLDERS] += 1
        return
    for child in children:
        name = child.rstrip("/")
        path = os.path.join(folder, name)  # noqa: PTH118
        if child == name:
            if selection.takes(prefix + name):
                yield image_uri(path), _version(path)
        elif selection.enters(prefix + name):
            identity = _folder_identity(path)
            if identity is None:
                selection.skipped[UNREADABLE_FOLDERS] += 1
            elif identity in ancestors:
                selection.skipped["links to a folder above"] += 1
            else:
                yield from _walk(path, f"{prefix}{child}", (*ancestors, identity), selection)


def _child(entry: os.DirEntry[str]) -> str:
    """The name, of a folder with "/", so that whole paths are in order. No more is kept of it."""
    return f"{entry.name}/" if _may_be_folder(entry) else entry.name


def _may_be_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder, a link to one, or may have been one before its disk was gone.

    A link to nowhere is a file if it is named like one: its row will say not_found.
    """
    try:
        is_folder = entry.is_dir()
        if entry.is_symlink() and not is_folder:
            entry.stat()
    except OSError as error:
        if error.errno in _NOWHERE:
            return not _is_named_like_a_file(entry.name)
        return error.errno != errno.ELOOP  # a link to itself
    return is_folder


def _is_named_like_a_file(name: str) -> bool:
    return is_image_name(name) or is_archive(name) or manifest_kind(name) is not None


def _folder_identity(path: str) -> Identity | None:
    """None for a folder that cannot be reached: a dead mount, or one that has just gone."""
    try:
        return _identity(os.stat(path))  # noqa: PTH116
    except OSError:
        return None


def _version(path: str) -> str | None:
    try:
        return file_version(os.stat(path))  # noqa: PTH116
    except OSError:  # a broken link; the row will say not_found
        return None


def _identity(status: os.stat_result) -> Identity:
    return status.st_dev, status.st_ino
