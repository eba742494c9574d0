"""The fence of a local OUT, where workers write to the table themselves: who may still commit.

It keeps out workers that outlive their run or their task. When a run is killed, one of its workers
may still be about to commit; when a worker looks dead to the scheduler, it may only be slow. The
fence file names the run that may commit, and the parts that may no longer be written. Workers read
it and rename their file under a shared flock(2); the driver changes it under an exclusive one. So
after a change, no commit that it forbids can happen any more.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO

from captioner.jobs.errors import StaleCommit
from captioner.jobs.storage.backends.backend import Lock
from captioner.jobs.storage.backends.paths import OutPath
from captioner.jobs.table.layout import RunFolder


@dataclass(frozen=True)
class FencedParts:
    """The parts of a run on a local OUT, where workers write to the table themselves."""

    run: RunFolder

    def path(self, name: str, *, replaces: bool = False) -> OutPath:
        """Return the file that a worker writes."""
        return self.run.part(name, replaces=replaces)

    def begin(self) -> None:
        """Let only workers of this run commit from now on."""
        self._write(self.run.run_id)

    def end(self) -> None:
        """Let no worker commit from now on, until the next run begins."""
        self._write(f"none since {self.run.run_id}")

    def revoke(self, name: str, *, replaces: bool = False) -> bool:
        """Forbid the commit of a part; return False if it is committed already."""
        with self._locked(fcntl.LOCK_EX) as file:
            if self.path(name, replaces=replaces).exists():
                return False
            _append(file, name)
            return True

    @contextmanager
    def permission(self, name: str) -> Iterator[None]:
        """Hold the right to commit a part; raise StaleCommit if it was lost."""
        with self._locked(fcntl.LOCK_SH) as file:
            file.seek(0)
            holder, *revoked = file.read().splitlines()
            if holder != self.run.run_id or name in revoked:
                raise StaleCommit(f"run {self.run.run_id} lost the right to commit part {name}")
            yield

    def publish(self, name: str, lock: Lock, *, replaces: bool = False) -> None:
        """Do nothing: the worker has put the part into the table itself."""

    def _write(self, holder: str) -> None:
        with self._locked(fcntl.LOCK_EX) as file:
            file.truncate(0)
            _append(file, holder)

    @contextmanager
    def _locked(self, kind: int) -> Iterator[IO[str]]:
        with self.run.out.fence.open("a+") as file:
            fcntl.flock(file, kind)
            yield file


def _append(file: IO[str], line: str) -> None:
    file.write(f"{line}\n")
    file.flush()
    os.fsync(file.fileno())
