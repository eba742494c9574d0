"""The watch over the images that a task opens: what its process tells the watchdog."""

import faulthandler
import json
import mmap
import os
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from itertools import count
from typing import Any

from captioner.jobs.execution.tasks.death import death_file
from captioner.jobs.execution.tasks.task import Task
from captioner.jobs.execution.worker import watchdog
from captioner.jobs.fetching.container_reader import Watch, unwatched


@dataclass(frozen=True)
class Limits:
    """The limits of a worker: `seconds` to open one image, and bytes of `memory` (None: any)."""

    seconds: float
    memory: int | None = None


@contextmanager
def watching(task: Task, limits: Limits | None) -> Iterator[Watch]:
    """Yield what to call around the opening of an image, with its position in the task.

    An image that exceeds the limits ends this process, after its watchdog has written that for the
    driver. Without limits, nothing is watched.
    """
    report = {
        "death": str(death_file(task)),
        "marker": str(task.run.started_marker(task.key)),
        "storage_options": task.settings.storage_options,
    }
    with watching_images(task.rows, limits, report) as watch:
        yield watch


@contextmanager
def watching_images(
    rows: Sequence[int], limits: Limits | None, report: Mapping[str, object] | None = None
) -> Iterator[Watch]:
    """Watch the images in these rows, as `watching` does, whatever they are opened for."""
    if limits is None:
        yield unwatched
        return
    watch = _Watch(rows)
    watch.tell(json.dumps({"limits": asdict(limits), "report": report}))
    try:
        yield watch.image
    finally:
        watch.tell("end")


class _Watch:
    """The watch over some images."""

    def __init__(self, rows: Sequence[int]) -> None:
        self.rows = rows
        self.watchdog = _running_watchdog()

    @contextmanager
    def image(self, number: int) -> Iterator[None]:
        with self.watchdog.opening(self.rows[number]):
            yield

    def tell(self, line: str) -> None:
        """Send a line, unless there is no watchdog any more: a task goes on without."""
        with suppress(OSError):
            os.write(self.watchdog.input, f"{line}\n".encode())


class _Watchdog:
    """The watchdog of this process, and the memory that it reads; see watchdog.py."""

    def __init__(self) -> None:
        memory = _memory(watchdog.TABLE_BYTES)
        try:
            self.process = _start(memory)
            self._table = memoryview(mmap.mmap(memory, watchdog.TABLE_BYTES)).cast("q")
        finally:
            os.close(memory)
        self._free = deque(range(watchdog.PLACES))
        self._images = count(1)

    @property
    def input(self) -> int:
        """The file descriptor of its standard input."""
        assert self.process.stdin
        return self.process.stdin.fileno()

    @contextmanager
    def opening(self, row: int) -> Iterator[None]:
        """Show that the image in a row is open, at once: its opening may end this process."""
        place = self._free.pop()  # there are more places than threads
        self._table[2 * place] = threading.get_native_id()
        self._table[2 * place + 1] = next(self._images) * watchdog.ROWS + row
        try:
            yield
        finally:
            self._table[2 * place + 1] = 0
            self._free.append(place)


_running: dict[str, _Watchdog] = {}


def _running_watchdog() -> _Watchdog:
    """Return the watchdog of this process, after starting it if none runs."""
    running = _running.get("watchdog")
    if running is None or running.process.poll() is not None:
        running = _running["watchdog"] = _Watchdog()
        # If this process crashes, as by a segmentation fault, Python says so before it dies.
        faulthandler.enable(running.input, all_threads=False)
    return running


def _memory(size: int) -> int:
    """Return the file descriptor of new memory, all zeros, for this process and another."""
    if hasattr(os, "memfd_create"):  # on Linux, but for Pythons that were built for old ones
        memory = os.memfd_create("captioner")
    else:
        with tempfile.TemporaryFile() as file:
            memory = os.dup(file.fileno())
    os.write(memory, bytes(size))  # which takes room on a disk now, not when it may be full
    return memory


def _start(memory: int) -> subprocess.Popen[bytes]:
    # It finds packages where this process does, and finds them only when it has to act.
    environment: Mapping[str, Any] = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(
        [sys.executable, "-P", str(watchdog.__file__), str(os.getpid()), str(memory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment,
        bufsize=0,
        pass_fds=[memory],
    )
