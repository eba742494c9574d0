"""OUT in a folder of this machine, or of a file system that is mounted on it."""

import fcntl
import os
import shutil
import socket
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager, suppress
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq

from captioner.jobs.errors import TemporaryError, UsageError, with_remedy
from captioner.jobs.storage.uris import file_version


class LocalFolder:
    """The backend of a local OUT; see Backend for its methods.

    Its lock is flock(2), which ends with the process, however that dies. It works on local file
    systems, NFS (Linux, version 4) and cluster file systems mounted with it (Lustre: `-o flock`),
    but not between machines on SMB mounts or on object stores mounted as folders: start one run at
    a time there.
    """

    def local_path(self, path: Path) -> Path:
        return path

    def make_folder(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)

    def exists(self, path: Path) -> bool:
        return path.exists()

    def is_folder(self, path: Path) -> bool:
        return path.is_dir()

    def files(self, folder: Path, pattern: str) -> list[Path]:
        # Not by glob, which takes a folder that cannot be read for an empty one.
        names = [path.name for path in folder.iterdir()] if folder.exists() else []
        return [folder / name for name in sorted(names) if fnmatchcase(name, pattern)]

    def sizes(self, folder: Path, pattern: str) -> list[int]:
        return [path.stat().st_size for path in folder.glob(pattern)]

    def versions(self, folder: Path, pattern: str) -> dict[str, str]:
        found = {}
        for path in self.files(folder, pattern):
            with suppress(FileNotFoundError):  # removed since it was listed
                found[path.name] = file_version(path.stat())
        return found

    def folders_below(self, folder: Path, name: str) -> list[Path]:
        return sorted(folder.glob(f"*/{name}"))

    def open(self, path: Path) -> pa.NativeFile:
        return pa.OSFile(str(path))

    def open_soon(self, path: Path, pool: Executor) -> Callable[[], pa.NativeFile]:
        return partial(self.open, path)

    def open_parquet(self, file: pa.NativeFile) -> pq.ParquetFile:
        return pq.ParquetFile(file)

    def read_batch(self, path: Path, number: int) -> pa.RecordBatch:
        with self.open(path) as file:
            return pa.ipc.open_file(file).get_batch(number)

    def read_bytes(self, path: Path) -> bytes:
        return path.read_bytes()

    def create(self, path: Path, content: bytes = b"") -> None:
        with path.open("xb") as file:
            file.write(content)

    def put(self, file: Path, path: Path) -> None:
        if file != path:
            file.rename(path)
            self.sync(path.parent)

    def write(self, path: Path, content: bytes, scratch: Path) -> None:
        unfinished = scratch / f"{path.name}.unfinished"
        with unfinished.open("wb") as file:
            file.write(content)
            _sync_file(file)
        self.put(unfinished, path)

    def get(self, path: Path, file: Path) -> None:
        shutil.copyfile(path, file)

    def copy(self, path: Path, to: Path) -> None:
        unfinished = to.with_name(f".{to.name}.unfinished")
        with path.open("rb") as source, unfinished.open("wb") as file:
            shutil.copyfileobj(source, file)
            _sync_file(file)
        self.put(unfinished, to)

    def remove(self, path: Path) -> None:
        path.unlink(missing_ok=True)

    def remove_files(self, folder: Path, names: Iterable[str], scratch: Path) -> None:
        """Rename the files to `scratch` first, because freeing their space takes much longer."""
        names = list(names)
        for name in names:
            with suppress(FileNotFoundError):
                (folder / name).rename(scratch / name)
        self.sync(folder)
        for name in names:
            self.remove(scratch / name)

    def remove_tree(self, folder: Path, *, ignore_errors: bool = False) -> None:
        shutil.rmtree(folder, ignore_errors)

    def remove_empty_folder(self, folder: Path) -> None:
        with suppress(OSError):
            folder.rmdir()

    def sync(self, folder: Path) -> None:
        sync_folder(folder)

    @contextmanager
    def work_folder(self, scratch: Path) -> Iterator[Path]:
        """Provide the scratch of the run: files in it can be renamed into the table."""
        yield scratch

    @contextmanager
    def lock(self, path: Path, out: Path, run_id: str) -> Iterator["HeldLock"]:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = path.open("a+")
        except OSError as error:
            raise UsageError(f"cannot write to {out}: {with_remedy(error)}") from error
        with file:
            _lock_or_refuse(file, out)
            file.truncate(0)
            file.write(f"run {run_id}, process {os.getpid()} on {socket.gethostname()}")
            file.flush()
            try:
                yield HeldLock()
            finally:
                file.truncate(0)

    def holder(self, path: Path, *, alive: bool = True) -> str | None:
        with suppress(FileNotFoundError), path.open() as file:
            # An empty lock is free; to try it would keep out a command that begins now.
            if (text := file.read()) and _is_locked(file) == alive:
                return text
        return None


def _sync_file(file: IO[bytes]) -> None:
    """Write what was written to a file through to the disk."""
    file.flush()
    os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """fsync a folder, so that renames and removals in it survive a power failure."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class HeldLock:
    """A lock that nobody can take from its holder."""

    def confirm(self) -> None:
        """Do nothing: the lock is held for as long as this process lives."""


def _is_locked(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(file, fcntl.LOCK_UN)
    return False


def _lock_or_refuse(file: IO[str], out: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.seek(0)
        holder = file.read() or "another run"
        message = f"{out} is in use by {holder}; try again when that run has ended"
        raise TemporaryError(message) from error
    except OSError as error:
        message = f"{out} is on a file system without locks ({error.strerror}): use another folder"
        raise UsageError(message) from error
