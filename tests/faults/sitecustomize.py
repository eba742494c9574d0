"""Images that harm the process which opens them, if this folder is on its PYTHONPATH.

Python imports this module when it starts. It replaces Pillow's reader for PPM by one for files that
begin with one of the words in HARMS.
"""

import ctypes
import io
import os
import signal
import time
from collections.abc import Callable, Mapping
from typing import IO, Any

from PIL import Image, ImageFile, JpegImagePlugin

SECONDS = float(os.environ.get("FAULTS_SLOW_SECONDS", "0.1"))


class OddError(Exception):
    """An error that no known reader of images raises."""


def _be_odd() -> None:
    raise OddError("odd image")


def _run_out_of_memory() -> None:
    raise MemoryError


def _eat_memory() -> None:
    eaten = []
    while True:
        eaten.append(b"x" * 2**25)


HARMS: Mapping[bytes, Callable[[], Any]] = {
    b"KILL": lambda: os.kill(os.getpid(), signal.SIGKILL),
    b"DIE!": os.abort,
    b"SEGV": lambda: ctypes.string_at(0),
    b"ODD!": _be_odd,
    b"SLOW": lambda: time.sleep(SECONDS),
    b"WAIT": lambda: time.sleep(10**6),
    b"HANG": lambda: ctypes.PyDLL(None).sleep(10**6),  # while it holds Python's lock
    b"EAT!": _eat_memory,
    b"LACK": _run_out_of_memory,
}


def _is_harmful(prefix: bytes) -> bool:
    return prefix[:4] in HARMS


def _open(file: IO[bytes], filename: str | bytes) -> ImageFile.ImageFile:
    HARMS[file.read(4)]()
    return JpegImagePlugin.JpegImageFile(io.BytesIO(file.read()), filename)


Image.init()
Image.register_open("PPM", _open, _is_harmful)
