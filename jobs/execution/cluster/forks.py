"""The process from which the workers of this machine are forked, with their imports done.

It imports PyTorch once, and while the driver lists the images: otherwise, each worker would do so
when it starts.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import forkserver, process, resource_tracker
from typing import Any

from captioner.jobs.config.job import JobConfig
from captioner.jobs.storage.temporary import TemporaryFolder
from captioner.options import HF, OPENAI

CAPTIONERS = {HF: "captioner.hf.captioner", OPENAI: "captioner.openai.captioner"}
IMPORTED = ("distributed.nanny", "captioner.jobs.execution.worker.worker")
_running = threading.Event()
_server: Any = forkserver._forkserver  # which has no public way to say that it runs, or to end it


@contextmanager
def forking(config: JobConfig) -> Iterator[None]:
    """Let workers be forked within this context, unless they are those of a running scheduler.

    A caller that forks processes of its own has a process for that already: then they are not.
    """
    if config.scheduler or _server._forkserver_pid is not None:
        yield
        return
    with TemporaryFolder() as folder, _sockets_in(folder):
        _start(CAPTIONERS.get(config.captioner.kind, "captioner.lstm.captioner"))
        _running.set()
        try:
            yield
        finally:
            _running.clear()
            _end()


def can_fork() -> bool:
    """Return whether workers can be forked."""
    return _running.is_set()


@contextmanager
def _sockets_in(folder: str) -> Iterator[None]:
    """Let sockets of multiprocessing be in a folder that goes even if this process is killed."""
    settings = process.current_process()._config  # type: ignore[attr-defined]
    former = settings.get("tempdir")
    settings["tempdir"] = folder
    try:
        yield
    finally:
        settings["tempdir"] = former


def _start(captioner: str) -> None:
    """Start the process; as its workers, it inherits that Ctrl-C is blocked: the driver ends it."""
    multiprocessing.set_forkserver_preload([*IMPORTED, captioner])
    resource_tracker.ensure_running()  # its start unblocks Ctrl-C
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _end() -> None:
    """End the process, though it may be about to import."""
    with suppress(ProcessLookupError):
        os.kill(_server._forkserver_pid, signal.SIGKILL)
    _server._stop()
