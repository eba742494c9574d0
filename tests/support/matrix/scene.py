"""A scene of the fault matrix: one OUT, the job that fills it, and its processes."""

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import psutil
from fsspec import AbstractFileSystem

from tests.support.commands import command, environment
from tests.support.matrix.faulty_proxy import FaultyProxy
from tests.support.photographs import photograph

HANG_SECONDS = 400.0  # on a busy machine; a run that takes longer will not end
END_SECONDS = 90.0  # for its processes, once the command has ended
SLOW_SECONDS = "1.0"  # to open an image, so that runs have more moments
MARK = "FAULT_MATRIX"  # the environment variable of all processes of a scene
ROLES = {"watchdog": "watchdog.py", "tracker": "resource_tracker", "forkserver": "forkserver"}
# Root may write everywhere, so it does without that right where a folder may be denied to it.
UNPRIVILEGED = ("setpriv", "--bounding-set=-dac_override,-dac_read_search")


@dataclass
class Scene:
    """One OUT; its job without faults, how its table is read, and what can fail in it.

    `pictures` has the numbers of the pictures that each image has had; the last one is its present
    one. `imported` are images about which a decision was saved.
    """

    name: str
    folder: Path
    dice: Random
    source: Sequence[object]
    out: str
    options: Sequence[object]
    files: AbstractFileSystem  # of OUT, without faults
    pictures: list[list[int]]
    variables: Mapping[str, str] = field(default_factory=dict)
    disk: Path | None = None  # a small file system with OUT
    shares_disk: bool = False  # with temporary files
    proxy: FaultyProxy | None = None
    cluster: Any = None
    second: bool = False
    process: subprocess.Popen[bytes] | None = None
    imported: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)  # since the last run began
    logs: int = 0

    @property
    def photos(self) -> Path:
        return self.folder / "photos"

    @property
    def temporary(self) -> Path:
        """The folder for temporary files, in half of the scenes on the small disk."""
        return (self.disk if self.disk and self.shares_disk else self.folder) / "tmp"

    @property
    def is_at_work(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def log(self) -> Path:
        return self.folder / f"log {self.logs:03d}.txt"

    def run_line(self, *more: object) -> list[object]:
        return ["run", *self.source, "--out", self.out, *self.options, *more]

    def start(self, *arguments: object) -> subprocess.Popen[bytes]:
        """Start a command in a process group of its own; its output goes to a new log."""
        self.logs += 1
        self.temporary.mkdir(exist_ok=True)
        line = command(*arguments)
        with self.log.open("wb") as log:
            log.write(f"{' '.join(line)}\n".encode())
            log.flush()
            return subprocess.Popen(
                [*(UNPRIVILEGED if os.geteuid() == 0 else ()), *line],
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def environment(self) -> Mapping[str, str]:
        own = {MARK: str(self.folder), "TMPDIR": str(self.temporary), "PYTHONFAULTHANDLER": "1"}
        return environment(**own, **{"FAULTS_SLOW_SECONDS": SLOW_SECONDS, **self.variables})

    def command(self, *arguments: object) -> int:
        """Run a command to its end; return its exit code."""
        return self.end_of(self.start(*arguments))

    def end_of(self, process: subprocess.Popen[bytes]) -> int:
        """Wait for the end of a command; raise TimeoutExpired after saying where it hangs."""
        try:
            return process.wait(HANG_SECONDS)
        except subprocess.TimeoutExpired:
            for each in self.living():
                with suppress(psutil.Error):
                    each.send_signal(signal.SIGABRT)  # faulthandler says what all threads do
            raise

    def family(self, role: str) -> list[psutil.Process]:
        """Return the processes of the command at work that have this role."""
        if self.cluster and role in ("worker", "nanny", "watchdog", "scheduler"):
            return list(self.cluster.family(role))
        assert self.process
        with suppress(psutil.Error):
            driver = psutil.Process(self.process.pid)
            if role == "driver":
                return [driver]
            return [p for p in driver.children(recursive=True) if has_role(p, role)]
        return []

    def living(self) -> list[psutil.Process]:
        """Return all processes of commands of this scene, whoever their parent is now."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                is_own = process.environ().get(MARK) == str(self.folder)
                if is_own and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def left(self) -> list[str]:
        """Return the command lines of processes that outlive their command, and end them."""
        deadline = time.monotonic() + END_SECONDS
        while (living := self.living()) and time.monotonic() < deadline:
            time.sleep(0.3)
        lines = []
        for process in living:
            with suppress(psutil.Error):
                lines.append(" ".join(process.cmdline()))
                process.kill()
        return lines

    def show(self, image: int, picture: int) -> bytes:
        """Note that an image has another picture from now on; return the file."""
        self.pictures[image].append(picture)
        return picture_file(picture)


def has_role(process: psutil.Process, role: str) -> bool:
    """Return whether a process is a worker, what workers are forked from, a watchdog or so on."""
    with suppress(psutil.Error):
        line, parent = (" ".join(each.cmdline()) for each in (process, process.parent()) if each)
        is_forked = ROLES["forkserver"] in line and ROLES["forkserver"] in parent
        if role == "worker":
            return is_forked or "spawn_main" in line
        return ROLES[role] in line and not is_forked
    return False


def picture_file(number: int) -> bytes:
    """Return a file whose picture takes its time to open."""
    return b"SLOW" + photograph(number)
