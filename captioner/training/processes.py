"""The processes that `torchrun` starts to train one model together, each on a GPU of its own.

Each takes its part of every batch. The gradients are averaged, so that the weights stay the same
everywhere. The first process alone decodes, evaluates, logs and saves. Without torchrun, there is
one process, and all of this does nothing.
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.distributed_c10d import Store
from torch.distributed.rendezvous import rendezvous

from captioner.device import choose_device
from captioner.errors import CaptionerError
from captioner.training.progress import only_errors

# For what the first process does alone, such as decoding. If one dies, torchrun ends the others.
LONGEST_WAIT = timedelta(hours=12)
SECONDS_TO_SPEAK = 10  # for the process that says why all end

T = TypeVar("T")


def rank() -> int:
    """Return the number of this process, from 0."""
    return int(os.environ["RANK"]) if _is_one_of_several() else 0


def is_first() -> bool:
    """Return whether this process decodes, evaluates, logs and saves."""
    return rank() == 0


def count() -> int:
    """Return the number of processes."""
    return int(os.environ["WORLD_SIZE"]) if _is_one_of_several() else 1


def _is_one_of_several() -> bool:
    return "TORCHELASTIC_RUN_ID" in os.environ and os.environ["WORLD_SIZE"] != "1"


@contextmanager
def together(device: str) -> Iterator[None]:
    """Join the other processes while the context lasts; an error in one of them ends all.

    The first one that fails raises its error; the others exit without a word.
    """
    if count() == 1:
        yield
        return
    store = next(rendezvous("env://"))[0]
    try:
        _join(store, choose_device(device))
        with only_errors(not is_first()):
            yield
        _wait()  # so that nobody closes a connection from which another still reads
        dist.destroy_process_group()
    except BaseException as error:
        if _fails_first(store):
            raise
        with suppress(KeyboardInterrupt):  # SIGTERM, with which torchrun follows the first exit
            time.sleep(SECONDS_TO_SPEAK)
        raise SystemExit(1) from error


def _fails_first(store: Store) -> bool:
    try:
        return store.add("failed", 1) == 1
    except RuntimeError:  # the process that keeps the store has ended
        return False


def _join(store: Store, device: torch.device) -> None:
    """Take a GPU, if they are wanted; connect with the other processes."""
    if device.type == "cuda":
        gpu, gpus = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if gpu >= gpus:
            raise CaptionerError(
                f"torchrun started more processes than this machine has GPUs ({gpus}): give it "
                f"--nproc-per-node {gpus}"
            )
        torch.cuda.set_device(gpu)  # it is the device "cuda" from here on
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(
        backend, store=store, rank=rank(), world_size=count(), timeout=LONGEST_WAIT
    )


def threads() -> int:
    """Return the number of threads to decode with; torchrun leaves each process a single one."""
    return torch.get_num_threads() if count() == 1 else os.cpu_count() or 1


@contextmanager
def first_before_others() -> Iterator[None]:
    """Let the first process leave the context before the others enter it, to find its files."""
    if not is_first():
        _wait()
    yield
    if is_first():
        _wait()


def from_first(function: Callable[[], T]) -> T:
    """Call a function in the first process alone; return its result, pickled, in all."""
    results = [function() if is_first() else None]
    if count() > 1:
        with _connected():
            dist.broadcast_object_list(results, src=0, device=torch.device("cpu"))
    return results[0]  # type: ignore[return-value]


def copy_first(module: nn.Module) -> None:
    """Give a module the weights that it has in the first process."""
    if count() == 1:
        return
    for value in module.state_dict().values():
        copy = value.contiguous()
        with _connected():
            dist.broadcast(copy, 0)
        value.copy_(copy)


def average(tensors: Sequence[Tensor]) -> None:
    """Replace float32 tensors by their mean over the processes, in place."""
    if count() == 1:
        return
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    _reduce(flat)
    flat /= count()
    parts = torch.split(flat, [tensor.numel() for tensor in tensors])
    for tensor, part in zip(tensors, parts, strict=True):
        tensor.copy_(part.view_as(tensor))


def share(weight: Tensor) -> Tensor:
    """Return the factor of a loss, a weighted mean over the part of a batch in this process.

    With it, the mean over the processes is that of the whole batch. `weight`, float32 [], is the
    sum of the weights in this part.
    """
    mean = weight.clone()
    average([mean])
    return weight / mean


def all_true(value: Tensor) -> bool:
    """Return whether a bool [] is true in all processes."""
    if count() > 1:
        value = value.int()
        _reduce(value, dist.ReduceOp.MIN)
    return bool(value)


def _wait() -> None:
    """Wait for all the other processes, on the CPU."""
    if count() > 1:
        _reduce(torch.zeros(1))


def _reduce(tensor: Tensor, operation: dist.ReduceOp.RedOpType = dist.ReduceOp.SUM) -> None:
    with _connected():
        dist.all_reduce(tensor, operation)


@contextmanager
def _connected() -> Iterator[None]:
    """Turn the error of a lost connection into one that says what to do."""
    try:
        yield
    except RuntimeError as error:
        raise CaptionerError(
            "another process of this training has ended: see what it or torchrun says, and give "
            f"the same command to continue ({str(error).partition('. ')[0]})"
        ) from error
