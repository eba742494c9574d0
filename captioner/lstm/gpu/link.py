"""A worker's end of the connection to its GPU process.

It connects, gets a Hello, hands over a block of memory, and gets None. Then, for each batch, it
sends the number of images whose pixels are in the block, and gets None once the block has what was
found in them. Instead of None, it may get a CaptionerError.
"""

import os
import time
from collections.abc import Sequence
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Connection, answer_challenge, deliver_challenge
from multiprocessing.reduction import send_handle
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from captioner.errors import CaptionerError, CaptionerUnavailable
from captioner.lstm.gpu.block import Layout, allocate, arrays_in
from captioner.lstm.gpu.place import Place
from captioner.lstm.wording import Found, Pixels, joined

POLL_SECONDS = 0.1  # for a process that starts
LOOK_SECONDS = 1.0  # between two looks whether the process that is waited for is still the one
# Images in a block: few enough for a worker to decode as many more until they have been answered.
# The process puts those of several workers together.
BATCH_SIZE = 256
# No process is there yet, or it has died.
LOST = (FileNotFoundError, ConnectionError, EOFError)


class Hello(NamedTuple):
    """What a GPU process says first: what it captions with, and the block that it wants."""

    identity: str
    layout: Layout


class _Connected(NamedTuple):
    """A connection to the process with this key, and the arrays of the block that it has."""

    key: bytes
    connection: Connection
    arrays: list[npt.NDArray[Any]]


class Link:
    """The link of one thread of a worker to its GPU process, for a captioner of this identity."""

    def __init__(self, place: Place, identity: str) -> None:
        self._place, self._identity = place, identity
        self._connected: _Connected | None = None

    def find(self, pixels: Sequence[Pixels]) -> Found:
        """Return what the process finds in images; if it dies, the next one is asked.

        Raises CaptionerError if it cannot caption, or was given up.
        """
        while True:
            try:
                self._place.check()
                return self._find(pixels)
            except LOST:
                time.sleep(POLL_SECONDS)
            except (OSError, AuthenticationError) as error:
                raise CaptionerUnavailable(
                    f"a worker cannot use the GPU process in {self._place.folder} "
                    f"({getattr(error, 'strerror', None) or error}): run again, or choose the "
                    "device cpu"
                ) from error

    def _find(self, pixels: Sequence[Pixels]) -> Found:
        connected = self._connected or self._connect()
        # Whatever interrupts this, the next batch must not take the answer to this one for its own.
        self._connected = None
        at_once = len(connected.arrays[0])
        starts = range(0, len(pixels), at_once)
        found = joined(
            [self._asked(connected, pixels[start : start + at_once]) for start in starts]
        )
        self._connected = connected
        return found

    def _asked(self, connected: _Connected, pixels: Sequence[Pixels]) -> Found:
        """Return what is found in no more images than a block takes."""
        key, connection, (ours, *results) = connected
        count = len(pixels)
        np.stack(pixels, out=ours[:count])
        connection.send(count)
        self._wait_until_done(connection, key)
        return Found.of([array[:count].copy() for array in results])

    def _connect(self) -> _Connected:
        key = self._place.key
        connection = Client(self._place.address, "AF_UNIX")
        self._authenticate(connection, key)
        hello: Hello = self._received(connection, key)
        if hello.identity != self._identity:
            raise CaptionerError(
                f"the model has changed since the run began: a worker has {self._identity}, and "
                f"its GPU process {hello.identity}; run again"
            )
        block = _allocated(hello.layout)
        try:
            send_handle(connection, block, None)  # on Unix, no process need be named
            self._wait_until_done(connection, key)
            return _Connected(key, connection, arrays_in(hello.layout, block))
        finally:
            os.close(block)

    def _authenticate(self, connection: Connection, key: bytes) -> None:
        """Let both ends show that they know the key; AuthenticationError if one does not."""
        self._wait(connection, key)
        try:
            answer_challenge(connection, key)
            deliver_challenge(connection, key)
        except AuthenticationError:
            self._check_key(key)
            raise

    def _wait_until_done(self, connection: Connection, key: bytes) -> None:
        """Wait for None; raise the error that comes instead."""
        error: CaptionerError | None = self._received(connection, key)
        if error is not None:
            raise error

    def _received(self, connection: Connection, key: bytes) -> Any:
        """Return what the process says."""
        self._wait(connection, key)
        return connection.recv()

    def _wait(self, connection: Connection, key: bytes) -> None:
        """Wait until the process says something, or raise one of LOST if another has its place.

        One that hangs may be beyond ending, and never close its connections.
        """
        while not connection.poll(LOOK_SECONDS):
            self._place.check()
            self._check_key(key)

    def _check_key(self, key: bytes) -> None:
        if self._place.key != key:
            raise ConnectionResetError("another process has taken its place")


def _allocated(layout: Layout) -> int:
    """Return a new block; CaptionerUnavailable without memory for it."""
    try:
        return allocate(layout)
    except OSError as error:
        raise CaptionerUnavailable(
            f"a worker has no memory for what it shares with its GPU process ({error.strerror}): "
            "start fewer workers"
        ) from error
