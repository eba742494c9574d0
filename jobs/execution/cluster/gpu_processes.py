"""The GPU processes of this machine: one for each GPU, which is started again if it dies.

Workers find them in folders of their own. When a process has died too often, its workers find why
there instead, and the run ends.
"""

import math
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from captioner.errors import CaptionerError, CaptionerUnavailable
from captioner.jobs.config.job import JobConfig
from captioner.jobs.errors import TemporaryError, UsageError
from captioner.jobs.execution.cluster.nannies import keep_ctrl_c_from_children
from captioner.jobs.messages import warn
from captioner.lstm.gpu.job import GpuJob
from captioner.lstm.gpu.place import Place

MOST_DEATHS, WITHIN_SECONDS = 3, 600.0  # of a process, before it is given up
PAUSES = (1.0, 5.0)  # seconds before the second and the third start
# A process hangs if it gives no sign of life for so long: the first one, or another one.
LOAD_SECONDS, QUIET_SECONDS = 900.0, 300.0
LOOK_SECONDS = 1.0
MOST_OF_ADDRESS = 107  # bytes of the path of a Unix socket: a limit of Linux
END_SECONDS = 30.0  # for one that was killed: a broken GPU may keep it


@contextmanager
def gpu_processes(config: JobConfig, count: int, folder: Path) -> Iterator[list[Path]]:
    """Yield the folders of the processes of the first `count` GPUs, which end with the context.

    Raises TemporaryError if a folder cannot be made, UsageError if its path is too long.
    """
    owners: list[_Owner] = []
    try:
        for number in range(count):
            variables = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", **only_gpu(number)}
            place = _made(folder / f"gpu-{number}")
            job = GpuJob(config.captioner, place, config.batch_size, variables)
            owner = _Owner(job, number)
            owner.start()
            owners.append(owner)
        yield [owner.job.place.folder for owner in owners]
    finally:
        for owner in owners:
            owner.end()
        deadline = time.monotonic() + END_SECONDS
        for owner in owners:
            owner.join(max(0.0, deadline - time.monotonic()))


def _made(folder: Path) -> Place:
    """Make the place of a GPU process, or raise the errors of `gpu_processes`."""
    place = Place(folder)
    if len(os.fsencode(place.address)) > MOST_OF_ADDRESS:
        raise UsageError(
            f"the path of a Unix socket, {place.address}, is longer than {MOST_OF_ADDRESS} bytes: "
            "let TMPDIR name a folder with a shorter path"
        )
    try:
        place.make()
    except OSError as error:
        raise TemporaryError(
            f"cannot make the folder of a GPU process, {folder}: {error.strerror} (TMPDIR may name "
            "another place)"
        ) from error
    return place


def only_gpu(number: int) -> Mapping[str, str]:
    """Return the variable that leaves a process one of the GPUs that this one may use."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    devices = visible.split(",") if visible else [str(n) for n in range(number + 1)]
    return {"CUDA_VISIBLE_DEVICES": devices[number]}


class _Owner(threading.Thread):
    """The owner of a GPU process: a thread of the driver that starts it again if it dies.

    The process ends when its owner does, even if that is killed.
    """

    def __init__(self, job: GpuJob, number: int) -> None:
        super().__init__(daemon=True)
        self.job, self._number = job, number
        self._lock = threading.Lock()  # over the process, and whether all is over
        self._process: Any = None
        self._over = threading.Event()

    def run(self) -> None:
        """Keep the process running, unless it dies too often."""
        try:
            self._keep_running()
        except Exception as error:  # noqa: BLE001 (the boundary: nobody else starts the process)
            why = f"the process of GPU {self._number} has lost its owner ({error!r}): run again"
            self.job.place.give_up(CaptionerUnavailable(why))

    def _keep_running(self) -> None:
        keep_ctrl_c_from_children()
        deaths: list[float] = []
        while (reason := self._death()) is not None:
            now = time.monotonic()
            deaths = [now, *(death for death in deaths if now - death < WITHIN_SECONDS)]
            if error := self._final(reason, len(deaths)):
                self.job.place.give_up(error)
                return
            details = {"gpu": self._number, "reason": str(reason)}
            line = f"the process of GPU {self._number} has died and is started again: {reason}"
            warn(line, "gpu_process_died", details)
            self._over.wait(PAUSES[len(deaths) - 1])

    def _death(self) -> str | CaptionerError | None:
        """Start the process and wait until it dies; return why, None if all is over."""
        # Spawned: the process that workers are forked from still imports Dask, which this does not.
        context: Any = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        name = f"GPU process {self._number}"
        process = context.Process(target=self.job.run, args=[theirs], name=name, daemon=True)
        with ours:
            with theirs, self._lock:
                if self._over.is_set():
                    return None
                try:
                    self.job.place.renew()
                    process.start()
                except Exception as error:  # noqa: BLE001 (of what starts it, such as a server)
                    return str(error) or repr(error)
                self._process = process
            told = _told(ours)
        process.kill()  # it may still hang
        process.join(END_SECONDS)
        return None if self._over.is_set() else told or _said_by(process.exitcode)

    def _final(self, reason: str | CaptionerError, deaths: int) -> CaptionerError | None:
        """Return the error with which the process is given up, if it is."""
        if isinstance(reason, CaptionerError):  # it would come again
            return reason
        if deaths < MOST_DEATHS:
            return None
        return CaptionerUnavailable(
            f"the process of GPU {self._number} has died {deaths} times within "
            f"{WITHIN_SECONDS / 60:g} minutes, the last time with: {reason} (look at the GPU, by "
            "nvidia-smi, and run again, or choose the device cpu)"
        )

    def end(self) -> None:
        """Kill the process for good, and wait for nothing."""
        with self._lock:
            self._over.set()
            if self._process is not None:
                self._process.kill()


def _told(process: Connection) -> str | CaptionerError | None:
    """Return why a process ends or must end; None if it has ended and said nothing."""
    limit = LOAD_SECONDS
    with suppress(EOFError, OSError):
        while _speaks(process, limit):
            if (told := process.recv()) is not None:
                return told
            limit = QUIET_SECONDS
        return f"it hangs: for {limit:g} s, it has given no sign of life"
    return None


def _speaks(process: Connection, seconds: float) -> bool:
    """Return whether a process says something in this time.

    Time is counted in steps, for both may be stopped for long meanwhile.
    """
    return any(process.poll(LOOK_SECONDS) for _ in range(math.ceil(seconds / LOOK_SECONDS)))


def _said_by(exit_code: int | None) -> str:
    """Return in words what the end of a process tells."""
    if exit_code is None:
        return "it does not end"
    if exit_code >= 0:
        return f"it ended with exit code {exit_code}"
    try:
        return f"killed by {signal.Signals(-exit_code).name}"
    except ValueError:  # a real-time signal
        return f"killed by signal {-exit_code}"
