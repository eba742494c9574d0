"""A worker's end of the connection to its GPU process.

It connects, gets a Hello, and hands over a block of memory. Then, for each batch, it sends the
number of images whose pixels are in the block, and gets None once the block has what was found in
them, or a CaptionerError.
"""

import os
import time
from collections.abc import Sequence
from multiprocessing.connection import Client, Connection
from multiprocessing.reduction import send_handle
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from captioner.errors import CaptionerError, CaptionerUnavailable
from captioner.lstm.gpu.block import Layout, allocate, arrays_in
from captioner.lstm.gpu.place import Place
from captioner.lstm.wording import Found, Pixels, joined

POLL_SECONDS = 0.1  # for a process that starts
# No process is there yet, or it has died.
LOST = (FileNotFoundError, ConnectionError, EOFError)


class Hello(NamedTuple):
    """What a GPU process says first: what it captions with, and the block that it wants."""

    identity: str
    layout: Layout


class Link:
    """The link of one worker to its GPU process, for a captioner of this identity."""

    def __init__(self, place: Place, identity: str) -> None:
        self._place, self._identity = place, identity
        self._connected: tuple[Connection, list[npt.NDArray[Any]]] | None = None

    def find(self, pixels: Sequence[Pixels]) -> Found:
        """Return what the process finds in images; if it dies, the next one is asked.

        Raises CaptionerError if it cannot caption, or was given up.
        """
        while True:
            try:
                return self._find(pixels)
            except LOST:
                self._connected = None
            self._place.check()
            time.sleep(POLL_SECONDS)

    def _find(self, pixels: Sequence[Pixels]) -> Found:
        connection, arrays = self._connected = self._connected or self._connect()
        at_once = len(arrays[0])
        starts = range(0, len(pixels), at_once)
        return joined(
            [_asked(connection, arrays, pixels[start : start + at_once]) for start in starts]
        )

    def _connect(self) -> tuple[Connection, list[npt.NDArray[Any]]]:
        connection = Client(self._place.address, "AF_UNIX", self._place.key)
        hello: Hello = connection.recv()
        if hello.identity != self._identity:
            raise CaptionerError(
                f"the model has changed since the run began, from {hello.identity} to "
                f"{self._identity}: run again"
            )
        block = _allocated(hello.layout)
        try:
            send_handle(connection, block, None)  # on Unix, no process need be named
            return connection, arrays_in(hello.layout, block)
        finally:
            os.close(block)


def _allocated(layout: Layout) -> int:
    """Return a new block; CaptionerUnavailable without memory for it."""
    try:
        return allocate(layout)
    except OSError as error:
        raise CaptionerUnavailable(
            f"a worker has no memory for what it shares with its GPU process ({error.strerror}): "
            "start fewer workers"
        ) from error


def _asked(
    connection: Connection, arrays: Sequence[npt.NDArray[Any]], pixels: Sequence[Pixels]
) -> Found:
    """Return what is found in no more images than a block takes."""
    count = len(pixels)
    np.stack(pixels, out=arrays[0][:count])
    connection.send(count)
    error: CaptionerError | None = connection.recv()
    if error is not None:
        raise error
    return Found.of([array[:count].copy() for array in arrays[1:]])
