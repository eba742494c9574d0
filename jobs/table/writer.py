"""The one process that may change a table."""

import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from captioner.jobs.storage.backends.backend import Backend, Lock
from captioner.jobs.storage.backends.paths import OutPath
from captioner.jobs.table.commits.commit import Parts, parts_of, write_whole
from captioner.jobs.table.layout import OutFolder, RunFolder


@dataclass(frozen=True)
class Writer:
    """The exclusive writer of an OUT, while its context lasts (`exclusive_writer`).

    `scratch` is a folder of this machine to work in. Methods that change the table raise OSError if
    they fail, and TemporaryError if the lock on OUT was lost, which can happen on a store.
    """

    run: RunFolder
    scratch: Path
    lock: Lock

    @property
    def out(self) -> OutFolder:
        return self.run.out

    @property
    def storage(self) -> Backend:
        return self.run.storage

    @property
    def events(self) -> Path:
        """The file on this machine to which events are appended; a store gets copies of it."""
        events = self.run.events
        return self.storage.local_path(events) or self.scratch / events.name

    @property
    def parts(self) -> Parts:
        return parts_of(self.run)

    @contextmanager
    def permission(self) -> Iterator[None]:
        """Hold the right to change OUT."""
        self.lock.confirm()
        yield

    def write(self, tables: Iterable[pa.Table], schema: pa.Schema, path: OutPath) -> int:
        """Write tables to one file of OUT, whole; return its rows. See `write_whole`."""
        return write_whole(tables, schema, path, self.scratch, self.permission())

    def write_text(self, text: str, path: OutPath) -> None:
        """Write a small file beside the table, whole and durably; it may replace another."""
        self.storage.write(path, text.encode(errors="replace"), self.scratch)

    def publish(self, name: str, *, replaces: bool = False) -> None:
        """Add a worker's part to the table, unless the worker has put it there itself."""
        self.parts.publish(name, self.lock, replaces=replaces)

    def remove_parts(self) -> None:
        """Remove all rows of this run: in the table, and those that wait to replace others."""
        with self.permission():
            for folder in (self.out.captions, self.run.replacements):
                for part in self.storage.files(folder, f"{self.run.run_id}-*.parquet"):
                    self.storage.remove(part)

    def clear_scratch(self) -> None:
        """Remove all files to work with, at the end of a run that cannot go on."""
        for path in self.scratch.iterdir():
            if path != self.events:
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink()

    def remove_tree(self, folder: OutPath) -> None:
        """Remove a folder of OUT."""
        with self.permission():
            self.storage.remove_tree(folder)
