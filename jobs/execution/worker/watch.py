"""The watch over the images that a task opens: what its process tells the watchdog."""

import faulthandler
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
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
        self.input = _watchdog_input()

    @contextmanager
    def image(self, number: int) -> Iterator[None]:
        row = self.rows[number]
        self.tell(f"+{row} {threading.get_native_id()}")
        try:
            yield
        finally:
            self.tell(f"-{row}")

    def tell(self, line: str) -> None:
        """Send a line, at once: the next thing that this process does may be its last."""
        with suppress(OSError):  # without its watchdog, a task goes on
            os.write(self.input, f"{line}\n".encode())


_running: dict[str, subprocess.Popen[bytes]] = {}


def _watchdog_input() -> int:
    """Return the file descriptor of the watchdog's input, after starting it if none runs."""
    process = _running.get("watchdog")
    if process is None or process.poll() is not None:
        process = _running["watchdog"] = _start()
        # If this process crashes, as by a segmentation fault, Python says so before it dies.
        faulthandler.enable(_input_of(process), all_threads=False)
    return _input_of(process)


def _input_of(process: subprocess.Popen[bytes]) -> int:
    assert process.stdin
    return process.stdin.fileno()


def _start() -> subprocess.Popen[bytes]:
    # It finds packages where this process does, and finds them only when it has to act.
    environment: Mapping[str, Any] = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(
        [sys.executable, "-P", str(watchdog.__file__), str(os.getpid())],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment,
        bufsize=0,
    )
