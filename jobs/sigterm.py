"""SIGTERM, by which a scheduler ends a command, as Ctrl-C."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from captioner.jobs.errors import Terminated


@contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """Let SIGTERM raise Terminated; only the main thread can set a handler."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former = signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, former)


def _terminate(_signal: int, _frame: FrameType | None) -> None:
    raise Terminated
