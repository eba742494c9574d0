"""What has come to a GPU process: pixels, which are copied to its device while it computes."""

import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor

from captioner.errors import CaptionerError


@dataclass(frozen=True)
class Request:
    """Images of a worker: the parts of its block with their pixels, and for what is found."""

    connection: Connection
    pixels: npt.NDArray[Any]  # uint8 [N, S, S, 3]
    results: Sequence[npt.NDArray[Any]]  # [N, ...]

    def answer(self, found: Sequence[npt.NDArray[Any]]) -> None:
        """Hand over what was found, arrays [N, ...]."""
        for result, array in zip(self.results, found, strict=True):
            result[:] = array
        self._say(None)

    def refuse(self, error: CaptionerError) -> None:
        """Say why nothing was found."""
        self._say(error)

    def _say(self, message: CaptionerError | None) -> None:
        with suppress(ConnectionError):  # the worker may have died
            self.connection.send(message)


class Batch:
    """The requests of a batch, with their pixels on the device, which has room for `most` images.

    A GPU copies them from pinned memory, on a stream of its own.
    """

    def __init__(self, most: int, side: int, device: torch.device) -> None:
        shape = (most, side, side, 3)
        is_gpu = device.type == "cuda"
        self._stream = torch.cuda.Stream(device) if is_gpu else None  # type: ignore[no-untyped-call]
        self._pinned = torch.zeros(shape, dtype=torch.uint8, pin_memory=is_gpu)
        self._on_device = self._pinned.to(device)  # the same on a CPU
        self.requests: list[Request] = []
        self.images = 0

    @property
    def pixels(self) -> Tensor:
        """The pixels on the device: uint8 [N, S, S, 3]."""
        return self._on_device[: self.images]

    def has_room(self, images: int) -> bool:
        return self.images + images <= len(self._pinned)

    def add(self, request: Request) -> None:
        """Copy the pixels of a request to the device."""
        places = slice(self.images, self.images + len(request.pixels))
        self._pinned[places] = torch.from_numpy(request.pixels)
        if self._stream is not None:
            with torch.cuda.stream(self._stream):
                self._on_device[places].copy_(self._pinned[places], non_blocking=True)
        self.requests.append(request)
        self.images = places.stop

    def finish(self) -> None:
        """Let what this thread computes next wait until the pixels are on the device."""
        if self._stream is not None:
            torch.cuda.current_stream().wait_stream(self._stream)

    def clear(self) -> None:
        """Forget the requests, which keep the memory of workers."""
        self.requests, self.images = [], 0

    def blank(self) -> None:
        """Fill the batch with black images that nobody has sent."""
        self.images = len(self._pinned)


class Intake:
    """Two batches: one is filled by the threads of workers, the other one computed meanwhile."""

    def __init__(self, filling: Batch, taken: Batch) -> None:
        self._filling, self._taken = filling, taken
        self._changed = threading.Condition()

    def put(self, request: Request) -> None:
        """Add a request, as soon as there is room."""
        with self._changed:
            self._changed.wait_for(lambda: self._filling.has_room(len(request.pixels)))
            self._filling.add(request)
            self._changed.notify_all()

    def take(self, seconds: float) -> Batch | None:
        """Return all that has come since the last batch was taken, which was cleared since.

        Wait only if nothing has come, and no longer than so many seconds; then return None.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._filling.images, seconds):
                return None
            self._filling, self._taken = self._taken, self._filling
            self._taken.finish()
            self._changed.notify_all()
            return self._taken
