"""The watchdog of a worker: a process that ends it when an image takes too long or too much memory.

It is a process of its own, because a reader of images may never return, and may keep Python's lock
meanwhile. It runs as a script and imports nothing else until it has to act. Its arguments are the
process to watch, its parent, and a file descriptor. The lines on its standard input come from
watch.py:

{"limits": ..., ...}    a task begins
end                     the task has ended
Fatal Python error: ... the worker crashes; Python's faulthandler says so, and where, in many lines

The file is memory in which the worker shows which images it has open, since a line for each would
take a tenth of its time. It has PLACES pairs of int64, a thread and an entry. The entry is 0, or
says that the thread has an image open: how many images there have been, times ROWS, plus the row of
this one in the partition.
"""

import json
import mmap
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

POLL_SECONDS, HASTY_SECONDS = 0.1, 0.02  # hasty when half of the memory is taken
JUDGE_SECONDS, NEARLY = 0.5, 0.9
WRITE_SECONDS = 30.0  # for a store that does not answer
PIPE_BYTES = 65536
PLACES, ROWS = 1024, 1 << 32
TABLE_BYTES = 16 * PLACES
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
TIMEOUT, MEMORY, CRASHED, KILLED = "timeout", "memory", "crashed", "killed"  # kinds of deaths
CRASH = "Fatal Python error: "


class Memory(NamedTuple):
    """The bytes of memory of a process: all, and those that it shares with no file."""

    resident: int = 0
    own: int = 0


class Opening(NamedTuple):
    """An image that is open: its entry in the table, in which thread it is, and since when."""

    entry: int
    thread: int
    since: float


class Watchdog:
    """What is known of the worker: its task, and which images it has open.

    The clock stands still while the worker or this process does not run, as when a laptop sleeps.
    """

    def __init__(self, worker: int, table: memoryview) -> None:
        self.worker = worker
        self._table = table  # of int64
        self.task: Mapping[str, Any] = {}
        self.open: dict[int, Opening] = {}  # by row
        self.memory = Memory()
        self.clock = 0.0
        self.looked = time.monotonic()
        self.unread = b""
        self.has_crashed = False

    def run(self) -> None:
        """Watch until the worker has ended."""
        while self._receive(self._pause()):
            self._advance()
            self._look()
            if self.task and (kind := self._excess()):
                self._end(kind)
        if self.task:  # a nanny may have ended the worker for its memory
            self._look()
            kind = CRASHED if self.has_crashed else KILLED
            kind = MEMORY if self._is_above(self.memory.resident) else kind
            self._write(kind, late=[], suspects=self.open)

    def _pause(self) -> float | None:
        if not self.task:
            return None
        return HASTY_SECONDS if self._is_above(2 * self.memory.resident) else POLL_SECONDS

    def _receive(self, seconds: float | None) -> bool:
        """Read lines, for at most that long; return False if the worker has ended."""
        if not select.select([0], [], [], seconds)[0]:
            return True
        data = os.read(0, PIPE_BYTES)
        *lines, self.unread = (self.unread + data).split(b"\n")
        for line in lines:
            self._take(line.decode())
        return data != b""

    def _take(self, line: str) -> None:
        self.has_crashed = self.has_crashed or line.startswith(CRASH)
        if self.has_crashed:
            return
        self.task = {} if line == "end" else json.loads(line)

    def _look(self) -> None:
        """See which images are open; those that were before have been open since then."""
        threads, entries = self._table[::2].tolist(), self._table[1::2].tolist()
        before, self.open = self.open, {}
        for thread, entry in zip(threads, entries, strict=True):
            if entry:
                row = entry % ROWS
                known = before.get(row)
                since = known.since if known and known.entry == entry else self.clock
                self.open[row] = Opening(entry, thread, since)

    def _advance(self) -> None:
        now = time.monotonic()
        if not is_stopped(self.worker):
            self.clock += min(now - self.looked, 2 * POLL_SECONDS)
        self.looked = now

    def _late(self, share: float = 1.0) -> dict[int, Opening]:
        """Return the images that have been open for this share of the limit."""
        earliest = self.clock - share * self.task["limits"]["seconds"]
        return {row: opening for row, opening in self.open.items() if opening.since < earliest}

    def _excess(self) -> str | None:
        """Return which limit is exceeded."""
        self.memory = memory_of(self.worker) or self.memory
        if self._is_above(self.memory.own):
            return MEMORY
        return TIMEOUT if self._late() else None

    def _is_above(self, memory: int) -> bool:
        limit = self.task["limits"]["memory"]
        return limit is not None and memory > limit

    def _end(self, kind: str) -> None:
        """Stop the worker, so that nothing changes meanwhile; write why, and kill it."""
        busy = self._busy() if kind == TIMEOUT else set()
        self._signal(signal.SIGSTOP)
        self._receive(0)
        self._look()
        if not (self.task and self._excess() == kind):  # the image has just been opened
            self._signal(signal.SIGCONT)
            return
        late = busy if len(busy) == 1 and busy <= self._late().keys() else set[int]()
        suspects = set[int]() if late else busy or {*self.open}
        writing = threading.Thread(target=self._write, args=[kind, late, suspects], daemon=True)
        writing.start()
        writing.join(WRITE_SECONDS)
        self._signal(signal.SIGKILL)
        os._exit(0)

    def _busy(self) -> set[int]:
        """Return the images that are late or nearly so, except those that wait for Python's lock.

        A thread that waits for it, because another keeps it, wakes up every few milliseconds; one
        that hangs does not. One that waits for its share of memory cannot be told from one that
        hangs: if there are several, none is convicted.
        """
        late = self._late(NEARLY)
        if len(self.open) == 1:
            return {*late}
        before = {row: pauses_of(self.worker, late[row].thread) for row in late}
        time.sleep(JUDGE_SECONDS)
        return {row for row in late if pauses_of(self.worker, late[row].thread) == before[row]}

    def _signal(self, number: int) -> None:
        if os.getppid() == self.worker:  # otherwise it has ended, and its number may be another's
            os.kill(self.worker, number)

    def _write(self, kind: str, late: Iterable[int], suspects: Iterable[int]) -> None:
        """Write which images are to blame, for the driver, unless the run has ended."""
        report = self.task["report"]
        if report is None:  # `captioner plan` needs no more than the death
            return
        from captioner.jobs.storage.backends.backend import backend_of
        from captioner.jobs.storage.backends.paths import out_path
        from captioner.jobs.storage.filesystems import configure

        death = {"kind": kind, "late": sorted(late), "suspects": sorted(suspects)}
        configure(report["storage_options"])
        path, marker = out_path(report["death"]), out_path(report["marker"])
        storage = backend_of(path)
        if storage.exists(marker):
            with storage.work_folder(path.parent) as scratch:
                storage.write(path, json.dumps(death | self.task["limits"]).encode(), scratch)
        if not storage.exists(marker):  # it has ended meanwhile
            storage.remove(path)


def memory_of(process: int) -> Memory | None:
    """Return the memory of a process; None if that is unknown, or it has none any more."""
    with suppress(OSError):
        _, resident, shared, *_ = map(int, Path(f"/proc/{process}/statm").read_text().split())
        return Memory(resident * PAGE_BYTES, (resident - shared) * PAGE_BYTES) if resident else None
    return None


def is_stopped(process: int) -> bool:
    """Return whether a process is stopped, as by Ctrl-Z; False where that is unknown."""
    with suppress(OSError):
        status = Path(f"/proc/{process}/stat").read_text()
        return status.rpartition(")")[2].split()[0] in "Tt"
    return False


def pauses_of(process: int, thread: int) -> object:
    """Return how often a thread has paused by itself; a new object where that is unknown."""
    with suppress(OSError):
        lines = Path(f"/proc/{process}/task/{thread}/status").read_text().splitlines()
        return next((line for line in lines if line.startswith("voluntary")), object())
    return object()


if __name__ == "__main__":
    _table = mmap.mmap(int(sys.argv[2]), TABLE_BYTES, access=mmap.ACCESS_READ)
    Watchdog(int(sys.argv[1]), memoryview(_table).cast("q")).run()
