"""The GPU process: it captions for the workers that connect to it, until its owner ends."""

import os
import threading
import traceback
from contextlib import suppress
from multiprocessing import AuthenticationError
from multiprocessing.connection import Connection, Listener
from multiprocessing.reduction import recv_handle
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from captioner.captioner import not_measured
from captioner.errors import CaptionerError
from captioner.lstm.captioner import LstmCaptioner
from captioner.lstm.gpu.block import Field, Layout, arrays_in, field_of
from captioner.lstm.gpu.forwarding import BATCH_SIZE
from captioner.lstm.gpu.intake import Batch, Intake, Request
from captioner.lstm.gpu.link import Hello

if TYPE_CHECKING:
    from captioner.lstm.gpu.job import GpuJob  # which imports this when it runs

BACKLOG = 128  # workers that connect at once


def run_gpu_process(job: "GpuJob", owner: Connection) -> None:
    """Caption for workers; end with the owner, or tell it the error that ends this process.

    A CaptionerError would come again. After any other one, which is told as text, another process
    may do better: this one cannot use its GPU any more.
    """
    threading.excepthook = lambda failure: _end(owner, failure.exc_value)
    threading.Thread(target=_end_with, args=[owner], daemon=True).start()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    try:
        _caption(job)
    except Exception as error:  # noqa: BLE001 (the boundary)
        _end(owner, error)


def _end_with(owner: Connection) -> None:
    with suppress(EOFError, OSError):
        owner.recv()  # it sends nothing, but ends
    os._exit(0)


def _end(owner: Connection, error: BaseException | None) -> None:
    """Tell an error and end at once: a broken GPU may hang whoever leaves it in order."""
    try:
        if not isinstance(error, CaptionerError | RuntimeError | OSError | MemoryError):
            traceback.print_exception(error)
        text = str(error).partition("\n")[0] or repr(error)
        owner.send(error if isinstance(error, CaptionerError) else text)
    finally:
        os._exit(1)


def _caption(job: "GpuJob") -> None:
    """Load the captioner, and caption what comes."""
    captioner = LstmCaptioner.open(job.options)
    if captioner.device.type == "cpu" != job.options.device:
        raise CaptionerError("PyTorch cannot use the GPU of this machine: choose the device cpu")
    most = job.most or captioner.batch_size
    filling, taken = (Batch(most, captioner.image_size, captioner.device) for _ in range(2))
    hello = Hello(captioner.identity, _layout(captioner, taken, min(most, BATCH_SIZE)))
    intake = Intake(filling, taken)
    Path(job.place.address).unlink(missing_ok=True)  # of a process that has died
    listener = Listener(job.place.address, "AF_UNIX", BACKLOG, job.place.key)
    threading.Thread(target=_accept, args=(listener, hello, intake), daemon=True).start()
    while True:
        batch = intake.take()
        _answer(captioner, batch)
        batch.clear()


def _layout(captioner: LstmCaptioner, batch: Batch, images: int) -> Layout:
    """Return the layout of blocks, by what is found in a blank batch, which warms a GPU up."""
    batch.blank()
    found = captioner.find(batch.pixels, not_measured)
    batch.clear()
    side = captioner.image_size
    fields = (Field("|u1", (side, side, 3)), *map(field_of, found.arrays))
    return Layout(images, fields)


def _answer(captioner: LstmCaptioner, batch: Batch) -> None:
    try:
        found = captioner.find(batch.pixels, not_measured).arrays
    except CaptionerError as error:
        for request in batch.requests:
            request.refuse(error)
        return
    start = 0
    for request in batch.requests:
        stop = start + len(request.pixels)
        request.answer([array[start:stop] for array in found])
        start = stop


def _accept(listener: Listener, hello: Hello, intake: Intake) -> None:
    while True:
        with suppress(AuthenticationError, EOFError, OSError):  # a worker that has just died
            arguments = (listener.accept(), hello, intake)
            threading.Thread(target=_receive, args=arguments, daemon=True).start()


def _receive(connection: Connection, hello: Hello, intake: Intake) -> None:
    """Take in what one worker sends, until it ends."""
    # The connection is not closed here: a request that is being computed may use it.
    with suppress(EOFError, OSError):
        connection.send(hello)
        block = recv_handle(connection)
        try:
            pixels, *results = arrays_in(hello.layout, block)
        finally:
            os.close(block)
        while True:
            count = connection.recv()
            intake.put(Request(connection, pixels[:count], [each[:count] for each in results]))
