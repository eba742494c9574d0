"""A second folder with the table's files, so that many of them change in one step.

The twin has hard links to the files. What is to change is changed in it, where nobody reads; then
the two folders exchange their names at once (renameat2(2), RENAME_EXCHANGE). Killed at any moment,
OUT/captions is the old folder or the new one, and the other lies in the scratch of a run, which the
next command removes.
"""

import ctypes
import errno
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from captioner.jobs.errors import TemporaryError
from captioner.jobs.table.commit import sync_folder

AT_FDCWD, RENAME_EXCHANGE = -100, 2  # of Linux


class Twin:
    """The twin of `folder`, which is this process's to change; it lies in `scratch`.

    OSError where that cannot be: on file systems without hard links or the exchange, if the folder
    is a link or a mount, has folders, or belongs to another user.
    """

    def __init__(self, folder: Path, scratch: Path) -> None:
        self._folder, self._twin = folder, scratch / folder.name
        if folder.is_symlink():
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(folder))
        self._seen = _changed_at(folder)
        self._twin.mkdir()
        self._link_files()
        self._exchange()

    def path(self, name: str) -> Path:
        """Where to write a new version of a file of the folder."""
        return self._twin / name

    def swap(self, changed: str, removed: Sequence[str]) -> None:
        """At once the folder has the new version of a file, and some others no longer.

        All is on disk in the end. TemporaryError if others have changed the folder meanwhile.
        """
        self._remove(removed)
        self._exchange()
        new, link = self._folder / changed, self._twin.parent / changed
        if new.exists():
            os.link(new, link)
            link.rename(self.path(changed))
        else:  # a file without rows is not written
            self._remove([changed])
        self._remove(removed)

    def _link_files(self) -> None:
        status = self._folder.stat()
        os.chown(self._twin, status.st_uid, status.st_gid)
        shutil.copystat(self._folder, self._twin)
        with os.scandir(self._folder) as entries:
            for entry in entries:
                os.link(entry.path, self._twin / entry.name, follow_symlinks=False)

    def _exchange(self) -> None:
        sync_folder(self._twin)
        if _changed_at(self._folder) != self._seen:
            raise TemporaryError(f"another program has changed {self._folder} meanwhile; try again")
        _exchange(self._folder, self._twin)
        self._seen = _changed_at(self._folder)
        sync_folder(self._folder.parent)
        sync_folder(self._twin.parent)

    def _remove(self, names: Sequence[str]) -> None:
        for name in names:
            self.path(name).unlink()


def _changed_at(folder: Path) -> int:
    """When a file was last added to a folder, or removed from it, in ns."""
    return folder.stat().st_mtime_ns


def _exchange(one: Path, other: Path) -> None:
    """Give each of two folders the other's name. OSError where that cannot be done in one step."""
    libc = ctypes.CDLL(None, use_errno=True)
    names = os.fsencode(one), os.fsencode(other)
    try:
        failed = libc.renameat2(AT_FDCWD, names[0], AT_FDCWD, names[1], RENAME_EXCHANGE)
    except AttributeError as error:
        raise OSError("no such function") from error
    if failed:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(one), None, str(other))
