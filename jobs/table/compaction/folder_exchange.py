"""A change of many files of the table in one step: two folders exchange their names.

A second folder, the twin, has hard links to the table's files. Changes are prepared in it, where
nobody reads; then both exchange their names at once (renameat2(2), RENAME_EXCHANGE). After a kill
at any moment, OUT/captions is one of them, and the next command removes the other. So whoever lists
the files finds every row once, as no journal could promise (merge_journal.py).
"""

import ctypes
import errno
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from captioner.jobs.errors import TemporaryError
from captioner.jobs.storage.backends.local_folder import sync_folder
from captioner.jobs.table.writer import Writer

AT_FDCWD, RENAME_EXCHANGE = -100, 2  # of Linux


def folder_exchange(writer: Writer) -> "FolderExchange | None":
    """Prepare an exchange of the table's folder; return None if that is impossible.

    That is so on stores, on file systems without hard links or the exchange, and if the folder is a
    link or a mount, contains folders, or belongs to another user.
    """
    folder = writer.storage.local_path(writer.out.captions)
    if folder is None:
        return None
    try:
        exchange = FolderExchange(folder, writer.scratch / folder.name)
        exchange.prepare()
    except OSError:
        return None
    return exchange


class FolderExchange:
    """A folder, and its twin with links to the same files; only this process changes them."""

    def __init__(self, folder: Path, twin: Path) -> None:
        self._folder, self._twin = folder, twin

    def prepare(self) -> None:
        """Make the twin, and try the exchange; raise OSError if it is impossible."""
        if self._folder.is_symlink():
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(self._folder))
        self._seen = _changed_at(self._folder)
        self._twin.mkdir()
        self._link_files()
        self._exchange()

    def path(self, name: str) -> Path:
        """Return where to write a new version of a file of the folder."""
        return self._twin / name

    def apply(self, changed: str, removed: Iterable[str]) -> None:
        """Replace a file and remove others in one step; TemporaryError if a program interfered."""
        removed = list(removed)
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

    def _remove(self, names: Iterable[str]) -> None:
        for name in names:
            self.path(name).unlink()


def _changed_at(folder: Path) -> int:
    """Return when a file was last added to a folder or removed from it, in ns."""
    return folder.stat().st_mtime_ns


def _exchange(one: Path, other: Path) -> None:
    """Exchange the names of two folders in one step; raise OSError if that is impossible."""
    libc = ctypes.CDLL(None, use_errno=True)
    names = os.fsencode(one), os.fsencode(other)
    try:
        failed = libc.renameat2(AT_FDCWD, names[0], AT_FDCWD, names[1], RENAME_EXCHANGE)
    except AttributeError as error:
        raise OSError("no such function") from error
    if failed:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(one), None, str(other))
