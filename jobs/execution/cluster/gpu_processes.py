"""The GPU processes of this machine: one for each GPU, which is started again if it dies.

Workers find them in folders of their own. When a process has died too often, its workers find why
there instead, and the run ends.
"""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from captioner.errors import CaptionerError, CaptionerUnavailable
from captioner.jobs.config.job import JobConfig
from captioner.jobs.execution.cluster.forks import can_fork
from captioner.jobs.execution.cluster.nannies import keep_ctrl_c_from_children
from captioner.jobs.messages import warn
from captioner.lstm.gpu.job import GpuJob
from captioner.lstm.gpu.place import Place

MOST_DEATHS, WITHIN_SECONDS = 3, 600.0  # of a process, before it is given up
END_SECONDS = 30.0  # for one that was killed: a broken GPU may keep it


@contextmanager
def gpu_processes(config: JobConfig, count: int, folder: Path) -> Iterator[list[Path]]:
    """Yield the folders of the processes of the first `count` GPUs, which end with the context."""
    owners = []
    try:
        for number in range(count):
            place = Place(folder / f"gpu-{number}")
            place.make()
            variables = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", **only_gpu(number)}
            job = GpuJob(config.captioner, place, config.batch_size, variables)
            owner = _Owner(job, number)
            owner.start()
            owners.append(owner)
        yield [owner.job.place.folder for owner in owners]
    finally:
        for owner in owners:
            owner.end()


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
        self._is_over = False

    def run(self) -> None:
        """Keep the process running, unless it dies too often."""
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

    def _death(self) -> str | CaptionerError | None:
        """Start the process and wait until it dies; return why, None if all is over."""
        context: Any = multiprocessing.get_context("forkserver" if can_fork() else "spawn")
        ours, theirs = context.Pipe()
        name = f"GPU process {self._number}"
        process = context.Process(target=self.job.run, args=[theirs], name=name, daemon=True)
        with ours:
            with theirs, self._lock:
                if self._is_over:
                    return None
                try:
                    process.start()
                except OSError as error:
                    return str(error)
                self._process = process
            told = None
            with suppress(EOFError, OSError):
                told = ours.recv()
        process.kill()  # if it has told why, it may still hang
        process.join(END_SECONDS)
        return None if self._is_over else told or _said_by(process.exitcode)

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
        """End the process for good."""
        with self._lock:
            self._is_over = True
            if self._process is not None:
                self._process.kill()
        self.join(END_SECONDS)


def _said_by(exit_code: int | None) -> str:
    """Return in words what the end of a process tells."""
    if exit_code is None:
        return "it does not end"
    if exit_code >= 0:
        return f"it ended with exit code {exit_code}"
    return f"killed by {signal.Signals(-exit_code).name}"
