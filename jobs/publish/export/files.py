"""Files that take their place whole, if that holds nothing, or a former export of ours."""

import difflib
import fcntl
import hashlib
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from captioner.jobs.errors import TemporaryError, UsageError
from captioner.jobs.publish.export.policy import Action
from captioner.jobs.publish.export.record import Mark, Record
from captioner.jobs.storage.backends.backend import backend_of
from captioner.jobs.storage.backends.paths import OutPath
from captioner.jobs.storage.failures import StoreError, job_errors
from captioner.jobs.storage.temporary import TemporaryFolder
from captioner.jobs.storage.uris import file_version

_UNFINISHED = re.compile(r"\..+\.(\d+)\.unfinished", re.DOTALL)
_BLOCK = 1 << 20
_DIFF_BYTES = 4 << 20  # of a file; longer ones are not compared line by line


@contextmanager
def usage_errors(place: object) -> Iterator[None]:
    """Convert an OSError of this machine to UsageError."""
    try:
        yield
    except StoreError:
        raise
    except OSError as error:
        raise UsageError(f"cannot write to {place}: {error.strerror or error}") from error


def read_if_there(path: Path) -> tuple[bytes | None, str | None]:
    """Return the content and the version of a file; None without one."""
    try:
        version = file_version(path.stat())
        return path.read_bytes(), version
    except (FileNotFoundError, NotADirectoryError):
        return None, None
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error


def replace_file(path: Path, content: bytes, version: str | None) -> None:
    """Write a file whole; it keeps its mode, and is durable if it replaces another.

    Raise TemporaryError if it is not the file of this version any more.
    """
    path = path.resolve() if path.is_symlink() else path
    path.parent.mkdir(parents=True, exist_ok=True)
    with _unfinished(path, path.parent) as (unfinished, file):
        file.write(content)
        file.flush()
        if version is not None:
            os.fsync(file.fileno())
            shutil.copymode(path, unfinished)
        if read_version(path) != version:
            raise TemporaryError(f"{path} was changed during the export: run it again")
        unfinished.rename(path)


@contextmanager
def _unfinished(path: OutPath, folder: Path) -> Iterator[tuple[Path, IO[bytes]]]:
    """Open a hidden file, locked; nothing remains of it but what is renamed."""
    unfinished = folder / f".{path.name}.{os.getpid()}.unfinished"
    try:
        with unfinished.open("xb") as file:
            with suppress(OSError):  # there are file systems without locks
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield unfinished, file
    finally:
        unfinished.unlink(missing_ok=True)


def remove_leftovers(folder: Path) -> None:
    """Remove the unfinished files in a folder that killed exports left there."""
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            found = _UNFINISHED.fullmatch(entry.name)
            if found and entry.is_file(follow_symlinks=False) and not _is_alive(int(found[1])):
                _remove_unless_locked(Path(entry.path))


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return process != os.getpid()  # in a container, the killed one had the same number


def _remove_unless_locked(path: Path) -> None:
    """Remove a file, unless a process of another machine or container is writing it."""
    with suppress(OSError), path.open("rb+") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink()


def read_version(path: Path) -> str | None:
    """Return the version of a file; None without one."""
    with suppress(FileNotFoundError):
        return file_version(path.stat())
    return None


@dataclass
class NewFile:
    """A file that is written aside; `finish` compares it with the one at its place."""

    path: OutPath
    record: Record
    unfinished: Path
    file: IO[bytes]
    dry_run: bool
    diff: Sequence[str] = field(default=())
    _digest: "hashlib._Hash" = field(default_factory=hashlib.sha256)

    def write(self, data: bytes) -> None:
        self._digest.update(data)
        self.file.write(data)

    def finish(self) -> Action:
        """Put the file in its place; raise UsageError if what is there is not an export of ours."""
        self.file.flush()
        os.fsync(self.file.fileno())
        with job_errors(self.path):
            return self._finish()

    def _finish(self) -> Action:
        mark, there = self._digest.hexdigest(), _digest_of(self.path)
        if there == mark:
            return Action.UNCHANGED
        if there is not None and there not in self.record.marks(str(self.path)):
            raise UsageError(
                f"{self.path} is not what was exported last, so a person may have written it: "
                "move it away, or give another --to"
            )
        if self.dry_run:
            self.diff = _diff(self.path, there is not None, self.unfinished)
        else:
            with self.record.writing([Mark(str(self.path), mark, there)]):
                self._put()
        return Action.WRITE

    def _put(self) -> None:
        if isinstance(self.path, Path) and self.path.exists():
            shutil.copymode(self.path, self.unfinished)
        backend_of(self.path).put(self.unfinished, self.path)


@contextmanager
def new_file(path: OutPath, record: Record, *, dry_run: bool) -> Iterator[NewFile]:
    """Provide a file to write; without `finish`, or in a dry run, nothing remains of it."""
    with usage_errors(path), TemporaryFolder() as scratch:
        folder = Path(scratch) if dry_run or not isinstance(path, Path) else path.parent
        folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder)
        with _unfinished(path, folder) as (unfinished, file):
            yield NewFile(path, record, unfinished, file, dry_run)


def _digest_of(path: OutPath) -> str | None:
    storage = backend_of(path)
    if not storage.exists(path):
        return None
    digest = hashlib.sha256()
    with storage.open(path) as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _diff(path: OutPath, is_there: bool, new: Path) -> Sequence[str]:
    """Return the lines in which a new file differs; none if one of the files is long."""
    before = b""
    if is_there:
        with backend_of(path).open(path) as file:
            before = file.read(_DIFF_BYTES + 1)
    with new.open("rb") as file:
        after = file.read(_DIFF_BYTES + 1)
    if max(len(before), len(after)) > _DIFF_BYTES:
        return ()
    old, new_lines = (data.decode(errors="replace").splitlines() for data in (before, after))
    return list(difflib.unified_diff(old, new_lines, str(path), str(path), n=0, lineterm=""))
