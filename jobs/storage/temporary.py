"""Temporary folders that do not outlive their process for long, however it dies."""

import fcntl
import os
import shutil
import tempfile
import time
from contextlib import suppress
from pathlib import Path

PREFIX = "captioner-work-"
SETTLED_SECONDS = 60.0  # a younger folder may not be locked yet


class TemporaryFolder(tempfile.TemporaryDirectory[str]):
    """A temporary folder that is locked for as long as its process lives.

    The lock, flock(2), says to later commands whether they may remove the folder: see
    `remove_dead_folders`. Where folders cannot be locked, it is an ordinary one.
    """

    def __init__(self) -> None:
        super().__init__(prefix=PREFIX, ignore_cleanup_errors=True)
        self._descriptor: int | None = os.open(self.name, os.O_RDONLY)
        with suppress(OSError):
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)

    def cleanup(self) -> None:
        """Remove the folder."""
        super().cleanup()
        if self._descriptor is not None:
            os.close(self._descriptor)
        self._descriptor = None


def remove_dead_folders() -> None:
    """Remove the temporary folders of processes of this user that were killed."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError):
            _remove_if_dead(folder)


def _remove_if_dead(folder: Path) -> None:
    entry = folder.lstat()
    age = abs(time.time() - entry.st_mtime)  # the clock may have been put back
    if entry.st_uid != os.getuid() or age < SETTLED_SECONDS:
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # BlockingIOError if it is in use
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(descriptor)
