"""One run at a time on OUT."""

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from captioner.jobs.errors import TemporaryError, UsageError
from captioner.jobs.storage.paths import is_store
from captioner.jobs.table.layout import RunFolder
from captioner.jobs.table.lease import lease


@contextmanager
def run_lock(run: RunFolder) -> Iterator[None]:
    """Hold OUT for this run; TemporaryError, naming the holder, if another run has it."""
    if is_store(run.out.root):
        with lease(run.out.root, run.run_id):
            yield
        return
    path = run.out.lock
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+")
    except OSError as error:
        raise UsageError(f"cannot write to {run.out.root}: {error.strerror}") from error
    with file:
        _lock_or_refuse(file, run)
        file.truncate(0)
        file.write(f"run {run.run_id}, process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield
        file.truncate(0)


def _lock_or_refuse(file: IO[str], run: RunFolder) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.seek(0)
        holder = file.read() or "another run"
        message = f"{run.out.root} is in use by {holder}; try again when it has ended"
        raise TemporaryError(message) from error
    except OSError as error:
        message = f"{run.out.root} lies on a file system without locks ({error.strerror})"
        raise UsageError(message) from error
