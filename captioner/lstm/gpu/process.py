"""The GPU process: it captions for the workers that connect to it, until its owner ends.

It tells its owner None after each batch, and every second while it has nothing to do: an owner that
hears nothing for long may assume that it hangs. The last thing that it tells is the error that ends
it.
"""

import os
import threading
import traceback
from contextlib import suppress
from multiprocessing import AuthenticationError
from multiprocessing.connection import Connection, Listener, answer_challenge, deliver_challenge
from multiprocessing.reduction import recv_handle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy.typing as npt
import torch

from captioner.captioner import not_measured
from captioner.errors import CaptionerError, CaptionerUnavailable
from captioner.lstm.captioner import LstmCaptioner
from captioner.lstm.gpu.block import Field, Layout, arrays_in, field_of
from captioner.lstm.gpu.intake import Batch, Intake, Request
from captioner.lstm.gpu.link import BATCH_SIZE, Hello

if TYPE_CHECKING:
    from captioner.lstm.gpu.job import GpuJob  # which imports this when it runs

BACKLOG = 128  # workers that connect at once
IDLE_SECONDS = 1.0  # between two signs of life
GONE = (EOFError, ConnectionError, AuthenticationError)  # a worker has died, or was none


def run_gpu_process(job: "GpuJob", owner: Connection) -> None:
    """Caption for workers; end with the owner, or tell it the error that ends this process.

    A CaptionerError would come again. After any other one, which is told as text, another process
    may do better: this one may not be able to use its GPU any more.
    """
    threading.excepthook = lambda failure: _end(owner, failure.exc_value)
    threading.Thread(target=_end_with, args=[owner], daemon=True).start()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    try:
        _caption(job, owner)
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


def _caption(job: "GpuJob", owner: Connection) -> None:
    """Load the captioner, and caption what comes."""
    captioner = LstmCaptioner.open(job.options)
    if captioner.device.type == "cpu" and job.options.device != "cpu":
        raise CaptionerError("PyTorch cannot use the GPU of this machine: choose the device cpu")
    # Several workers send more than one would: an H200 searches 1,024 in 35 ms, 2,048 in 38.
    most = job.most or 2 * captioner.batch_size
    filling, taken = (Batch(most, captioner.image_size, captioner.device) for _ in range(2))
    hello = Hello(captioner.identity, _layout(captioner, taken, min(most, BATCH_SIZE)))
    intake = Intake(filling, taken)
    key = job.place.key
    Path(job.place.address).unlink(missing_ok=True)  # of a process that has died
    listener = Listener(job.place.address, "AF_UNIX", BACKLOG)
    threading.Thread(target=_accept, args=(listener, key, hello, intake), daemon=True).start()
    while True:
        owner.send(None)
        if batch := intake.take(IDLE_SECONDS):
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


def _accept(listener: Listener, key: bytes, hello: Hello, intake: Intake) -> None:
    """Give each worker that connects a thread; so none waits until another has shown its key."""
    while True:
        with suppress(ConnectionError):
            arguments = (listener.accept(), key, hello, intake)
            threading.Thread(target=_receive, args=arguments, daemon=True).start()


def _receive(connection: Connection, key: bytes, hello: Hello, intake: Intake) -> None:
    """Take in what one worker sends, until it ends."""
    # The connection is not closed here: a request that is being computed may use it.
    with suppress(*GONE):
        deliver_challenge(connection, key)
        answer_challenge(connection, key)
        connection.send(hello)
        try:
            pixels, *results = _shared(connection, hello.layout)
        except CaptionerUnavailable as error:
            connection.send(error)
            return
        connection.send(None)
        while True:
            count = connection.recv()
            intake.put(Request(connection, pixels[:count], [each[:count] for each in results]))


def _shared(connection: Connection, layout: Layout) -> list[npt.NDArray[Any]]:
    """Return the arrays of the block that a worker sends; CaptionerUnavailable without room."""
    try:
        block = recv_handle(connection)
        try:
            return arrays_in(layout, block)
        finally:
            os.close(block)
    except ConnectionError:
        raise
    except (OSError, RuntimeError) as error:  # RuntimeError: it may not open another file
        raise CaptionerUnavailable(
            f"a GPU process has no room for the memory of another worker ({error}): start fewer "
            "workers, or raise `ulimit -n`"
        ) from error
