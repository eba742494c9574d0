"""OUT on an object store, by any URL that fsspec can write."""

import functools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor
from contextlib import AbstractContextManager, contextmanager, suppress
from fnmatch import fnmatchcase
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from captioner.jobs.storage.attempts.faults import http_status
from captioner.jobs.storage.backends.lease import Lease, latest_holder, lease
from captioner.jobs.storage.bounded_reads import RemoteFile
from captioner.jobs.storage.failures import StoreError, StoreNotFound, store_errors
from captioner.jobs.storage.temporary import TemporaryFolder
from captioner.jobs.storage.uris import info_version

CONFLICT_DELAYS = (0.2, 1.0, 3.0)  # seconds; a store may still be busy with the request before
WHOLE_BYTES = 4 * 1024 * 1024  # an object of at most this size is read in one request


class ObjectStore:
    """The backend of an OUT on a store; see Backend for its methods.

    A store has no folders, writes an object whole, by one PUT or one completed multipart upload,
    and cannot append to it. Listings are not cached. A run holds a lease (lease.py), not a lock.
    """

    def local_path(self, path: UPath) -> None:
        return None

    def make_folder(self, folder: UPath) -> None:
        pass

    def exists(self, path: UPath) -> bool:
        with store_errors():
            return bool(path.fs.exists(path.path))

    def is_folder(self, path: UPath) -> bool:
        with store_errors():
            return bool(path.fs.isdir(path.path))

    def files(self, folder: UPath, pattern: str) -> list[UPath]:
        return [folder / name for name in sorted(self._listed(folder, pattern))]

    def sizes(self, folder: UPath, pattern: str) -> list[int]:
        return [info["size"] for info in self._listed(folder, pattern).values()]

    def versions(self, folder: UPath, pattern: str) -> dict[str, str]:
        listed = sorted(self._listed(folder, pattern).items())
        return {name: info_version(info) or str(info["size"]) for name, info in listed}

    def _listed(self, folder: UPath, pattern: str) -> dict[str, Mapping[str, Any]]:
        """List infos by name; not by glob, which takes a failed listing for an empty one."""
        with suppress(FileNotFoundError), store_errors():
            found = {
                i["name"].rpartition("/")[2]: i for i in folder.fs.ls(folder.path, detail=True)
            }
            return {name: info for name, info in found.items() if fnmatchcase(name, pattern)}
        return {}

    def folders_below(self, folder: UPath, name: str) -> list[UPath]:
        with store_errors():
            keys = folder.fs.find(folder.path)  # one request per thousand objects, not per run
        below = (key.removeprefix(folder.path).lstrip("/").split("/") for key in keys)
        found = {parts[0] for parts in below if len(parts) > 2 and parts[1] == name}
        return [folder / child / name for child in sorted(found)]

    def open(self, path: UPath) -> pa.NativeFile:
        """Open an object; of a large one, fetch only what is read."""
        with store_errors():
            file = path.fs.open(path.path, "rb", cache_type="none")
            if file.size <= WHOLE_BYTES:
                return pa.BufferReader(file.read())
        return pa.PythonFile(_Reader(file), "r")

    def open_soon(self, path: UPath, pool: Executor) -> Callable[[], pa.NativeFile]:
        return pool.submit(self.open, path).result

    def open_parquet(self, file: pa.NativeFile) -> pq.ParquetFile:
        return pq.ParquetFile(file, pre_buffer=True)

    def read_batch(self, path: UPath, number: int) -> pa.RecordBatch:
        return _arrow_file(path).get_batch(number)

    def read_bytes(self, path: UPath) -> bytes:
        with store_errors():
            return bytes(path.fs.cat_file(path.path))

    def create(self, path: UPath, content: bytes = b"") -> None:
        """Write an object that does not exist yet, even if the answer of the store is lost.

        Then it says that there is one already, or nothing: the content tells whose it is.
        """
        for delay in (*CONFLICT_DELAYS, None):
            try:
                with store_errors(FileExistsError):
                    path.fs.pipe_file(path.path, content, mode="create")
                return
            except (FileExistsError, StoreError) as error:
                if self._holds(path, content):
                    return
                if http_status(error) == HTTPStatus.PRECONDITION_FAILED:
                    raise FileExistsError(str(path)) from error
                if delay is None or http_status(error) != HTTPStatus.CONFLICT:
                    raise
            time.sleep(delay)

    def _holds(self, path: UPath, content: bytes) -> bool:
        """Return whether an object exists and has this content."""
        with suppress(OSError):
            return bool(content) and self.read_bytes(path) == content
        return False

    def put(self, file: Path, path: UPath) -> None:
        """Write an object; again if the store no longer knows the upload, whose answer was lost."""
        try:
            with store_errors():
                path.fs.put_file(str(file), path.path)
        except StoreNotFound:
            with store_errors():
                path.fs.put_file(str(file), path.path)

    def write(self, path: UPath, content: bytes, scratch: Path | None = None) -> None:
        with store_errors():
            path.fs.pipe_file(path.path, content)

    def get(self, path: UPath, file: Path) -> None:
        with store_errors():
            path.fs.get_file(path.path, str(file))

    def copy(self, path: UPath, to: UPath) -> None:
        with store_errors():
            path.fs.cp_file(path.path, to.path)

    def remove(self, path: UPath) -> None:
        with suppress(FileNotFoundError), store_errors():
            path.fs.rm_file(path.path)

    def remove_files(self, folder: UPath, names: Iterable[str], scratch: Path) -> None:
        """Remove objects, many per request."""
        names = set(names)
        if there := [path.path for path in self.files(folder, "*") if path.name in names]:
            with store_errors():
                folder.fs.rm(there)
            if left := [path for path in self.files(folder, "*") if path.name in names]:
                raise StoreError(f"{left[0]} cannot be removed")  # s3fs does not report it

    def remove_tree(self, folder: UPath, *, ignore_errors: bool = False) -> None:
        with suppress(*[OSError] if ignore_errors else [FileNotFoundError]), store_errors():
            folder.fs.rm(folder.path, recursive=True)
            if left := folder.fs.find(folder.path):
                raise StoreError(f"{left[0]} cannot be removed")

    def remove_empty_folder(self, folder: UPath) -> None:
        pass

    def sync(self, folder: UPath) -> None:
        pass

    @contextmanager
    def work_folder(self, scratch: UPath) -> Iterator[Path]:
        with TemporaryFolder() as folder:
            yield Path(folder)

    def lock(self, path: UPath, out: UPath, run_id: str) -> AbstractContextManager[Lease]:
        return lease(self, path, out, run_id)

    def holder(self, path: UPath, *, alive: bool = True) -> str | None:
        found = latest_holder(self, path)
        return str(found) if found and not found.is_free and found.seems_alive == alive else None


@functools.lru_cache(maxsize=1)
def _arrow_file(path: UPath) -> Any:
    """Open the plan of a run, cached so that a process reads its footer once."""
    return pa.ipc.open_file(ObjectStore().open(path))


class _Reader(RemoteFile):
    """An object whose reads fail with StoreError."""

    def read(self, size: int | None = -1, /) -> bytes:
        with store_errors():
            return super().read(size)
