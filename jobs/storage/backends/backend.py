"""The interface of the place where OUT lies, which callers need not know."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

from captioner.jobs.storage.backends.local_folder import LocalFolder
from captioner.jobs.storage.backends.object_store import ObjectStore
from captioner.jobs.storage.backends.paths import OutPath
from captioner.jobs.storage.look_ahead import take_ahead

OPEN_AHEAD = 16  # files that are opened before they are read
Open = Callable[[], pa.NativeFile]


class Lock(Protocol):
    """The exclusive right to change what is in OUT."""

    def confirm(self) -> None:
        """Raise TemporaryError if the lock was lost, StoreError if the store does not answer."""


class Backend(Protocol):
    """A folder of this machine, or an object store.

    Every method raises OSError if it fails; on a store, StoreError, which is an OSError. Paths are
    `Any` here because each backend takes its own kind.
    """

    def local_path(self, path: Any) -> Path | None:
        """Return the path on this machine, where files can be appended to; None on a store."""

    def make_folder(self, folder: Any) -> None:
        """Make a folder and its parents; do nothing on a store."""

    def exists(self, path: Any) -> bool:
        """Return whether a file exists."""

    def is_folder(self, path: Any) -> bool:
        """Return whether a folder exists."""

    def files(self, folder: Any, pattern: str) -> Sequence[OutPath]:
        """List the files of a folder that match, sorted by name; none if there is no folder."""

    def sizes(self, folder: Any, pattern: str) -> list[int]:
        """List the sizes in bytes of the files of a folder that match."""

    def versions(self, folder: Any, pattern: str) -> dict[str, str]:
        """List the files of a folder that match: what changes with their content, by name."""

    def folders_below(self, folder: Any, name: str) -> Sequence[OutPath]:
        """List `folder/*/name`, sorted; on a store, those that hold objects."""

    def open(self, path: Any) -> pa.NativeFile:
        """Open a file for reading at any position."""

    def open_soon(self, path: Any, pool: Executor) -> Callable[[], pa.NativeFile]:
        """Return a function that opens a file, or waits for it where `pool` opens it already."""

    def open_parquet(self, file: pa.NativeFile) -> Any:
        """Open a file as pyarrow.parquet.ParquetFile, with reads that suit the backend."""

    def read_batch(self, path: Any, number: int) -> pa.RecordBatch:
        """Read one record batch of an Arrow file."""

    def read_bytes(self, path: Any) -> bytes:
        """Read a small file."""

    def create(self, path: Any, content: bytes = b"") -> None:
        """Write a file that does not exist yet; raise FileExistsError if it does.

        On a store, one with the same content counts as written by this call, whose answer may have
        been lost: begin with something that nobody else writes, such as a random token.
        """

    def put(self, file: Path, path: Any) -> None:
        """Move or copy a finished file to `path`, whole and durably; replace any file there.

        A local OUT requires that both are on one file system.
        """

    def write(self, path: Any, content: bytes, scratch: Path) -> None:
        """Write a small file, whole and durably, over any other file."""

    def get(self, path: Any, file: Path) -> None:
        """Copy a file to this machine."""

    def copy(self, path: Any, to: Any) -> None:
        """Copy a file within the backend, whole; replace any file there."""

    def remove(self, path: Any) -> None:
        """Remove a file if it exists."""

    def remove_files(self, folder: Any, names: Iterable[str], scratch: Path) -> None:
        """Remove those of the files that exist, as nearly at once as possible, durably."""

    def remove_tree(self, folder: Any, *, ignore_errors: bool = False) -> None:
        """Remove a folder and everything in it; raise OSError if anything is left."""

    def remove_empty_folder(self, folder: Any) -> None:
        """Remove a folder if it is empty; do nothing on a store."""

    def sync(self, folder: Any) -> None:
        """Make the renames and removals in a folder survive a power failure."""

    def work_folder(self, scratch: Any) -> AbstractContextManager[Path]:
        """Provide a folder of this machine to prepare files in."""

    def lock(self, path: Any, out: Any, run_id: str) -> AbstractContextManager[Lock]:
        """Hold the lock of OUT, at `path`, for a run; TemporaryError if another run has it."""

    def holder(self, path: Any, *, alive: bool = True) -> str | None:
        """Return which run holds the lock of OUT at `path`; None if none does.

        Unless `alive`, return the run that was killed while it held it.
        """


def is_store(path: OutPath) -> bool:
    """Return whether a path is on an object store."""
    return not isinstance(path, Path)


def backend_of(path: OutPath) -> Backend:
    """Return the backend of a path."""
    return _OBJECT_STORE if is_store(path) else _LOCAL_FOLDER


def open_ahead(paths: Iterable[OutPath]) -> Iterator[tuple[OutPath, Open]]:
    """Yield each path with what opens its file; on a store, threads have begun to open the next."""
    with ThreadPoolExecutor(OPEN_AHEAD) as pool:
        files = ((path, backend_of(path).open_soon(path, pool)) for path in paths)
        yield from take_ahead(files, OPEN_AHEAD)


_LOCAL_FOLDER: Backend = LocalFolder()
_OBJECT_STORE: Backend = ObjectStore()
