"""A scheduler, two nannies and their workers, as processes of a running Dask cluster."""

import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

WORKERS = 2
START_SECONDS = 120.0


class DaskCluster:
    """Processes of Dask, which are started again when they have died."""

    def __init__(self, folder: Path, variables: Mapping[str, str]) -> None:
        self.folder, self.variables = folder, variables
        self.file = folder / "scheduler.json"
        self.scheduler: subprocess.Popen[bytes] | None = None
        self.nannies: list[subprocess.Popen[bytes]] = []

    def revive(self) -> None:
        """Start what does not run."""
        if self.scheduler is None or self.scheduler.poll() is not None:
            self.close()
            self.file.unlink(missing_ok=True)
            options = ("--host", "127.0.0.1", "--port", "0", "--dashboard-address", ":0")
            self.scheduler = self._start("scheduler", *options, "--scheduler-file", self.file)
            deadline = time.monotonic() + START_SECONDS
            while not self.file.exists() and time.monotonic() < deadline:
                time.sleep(0.1)
        self.nannies = [nanny for nanny in self.nannies if nanny.poll() is None]
        while len(self.nannies) < WORKERS:
            self.nannies.append(self._start_nanny())

    def _start_nanny(self) -> subprocess.Popen[bytes]:
        options = ("--nthreads", "1", "--memory-limit", "4GB", "--no-dashboard")
        place = ("--host", "127.0.0.1", "--local-directory", self.folder)
        return self._start("worker", "--scheduler-file", self.file, *options, *place)

    def _start(self, *arguments: object) -> subprocess.Popen[bytes]:
        line = [sys.executable, "-m", "dask", *map(str, arguments)]
        with (self.folder / "dask.log").open("ab") as log:
            return subprocess.Popen(
                line, env=self.variables, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip

    def family(self, role: str) -> Sequence[psutil.Process]:
        """Return its processes with this role."""
        from tests.support.matrix.scene import has_role

        if role == "scheduler":
            return [psutil.Process(self.scheduler.pid)] if self.scheduler else []
        found = []
        for nanny in self.nannies:
            with suppress(psutil.Error):
                process = psutil.Process(nanny.pid)
                children = process.children(recursive=True)
                found += (
                    [process] if role == "nanny" else [p for p in children if has_role(p, role)]
                )
        return found

    def close(self) -> None:
        """End all processes."""
        for process in (*self.nannies, *([self.scheduler] if self.scheduler else [])):
            with suppress(psutil.Error):
                own = psutil.Process(process.pid)
                for each in (*own.children(recursive=True), own):
                    each.kill()
            process.wait()
        self.nannies, self.scheduler = [], None
