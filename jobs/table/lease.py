"""Who may write to OUT on a store: one run at a time, for as long as it renews its lease.

A store frees no lock when a process dies. All it can do is to create an object only if there is
none of its name. So leases are numbered objects, `OUT/runs/.lock/000000001` and so on. The highest
number has OUT; whoever takes over creates the next one, in which only one succeeds. Nobody but its
holder writes to a lease, so no write can undo a later one.

A run renews its lease from a thread. A lease is free if its holder has ended; if it was a process
of this machine that is no more; or if it has not been renewed for LEASE_SECONDS, and is not for
another WATCH_SECONDS in which the next run looks on, so that clocks need not agree.

A run that slept for longer finds the next number, by which it knows that it has lost OUT. To renew
is to write the lease, then to look for that number; to take over is to create it, then to look
whether the former lease was written meanwhile. So of two that do both at once, one gives way. A run
renews its lease before it writes to the table, too, if that is CONFIRM_SECONDS ago. What is left is
a run which sleeps through a whole lease between that and the write that follows: then an image may
have two rows until the next run, whose plan finds the older one (`Plan.surplus`), or a file that
was written anew has the rows of before, and the next run finds what is missing or old.
"""

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from upath import UPath

from captioner.jobs.errors import TemporaryError, UsageError
from captioner.jobs.storage.failures import os_errors
from captioner.jobs.storage.paths import OutPath, create, is_store, remove

LEASE_SECONDS = 90.0
RENEW_SECONDS = 15.0
CONFIRM_SECONDS = 30.0
WATCH_SECONDS = 30.0
_held: list["Lease"] = []  # by this process


@dataclass(frozen=True)
class Holder:
    """What a lease says of its run."""

    run_id: str
    process: int
    host: str
    machine: str | None
    renewed_at: str
    is_free: bool = False

    @classmethod
    def of_this_process(cls, run_id: str, *, is_free: bool = False) -> "Holder":
        now = datetime.now(UTC).isoformat(timespec="seconds")
        return cls(run_id, os.getpid(), socket.gethostname(), _machine(), now, is_free)

    def __str__(self) -> str:
        return f"run {self.run_id}, process {self.process} on {self.host}"

    @property
    def expires_at(self) -> datetime:
        return datetime.fromisoformat(self.renewed_at) + timedelta(seconds=LEASE_SECONDS)

    @property
    def is_dead(self) -> bool:
        """Whether it was a process of this machine that is no more."""
        return self.machine is not None and self.machine == _machine() and _is_gone(self.process)

    def to_json(self) -> bytes:
        return json.dumps(vars(self)).encode()


def _is_gone(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # another user's
        return False
    return False


@dataclass
class Lease:
    """The lease of a run of this process."""

    out: UPath
    run_id: str
    number: int
    renewed: float = field(default_factory=lambda: _seconds())

    @property
    def path(self) -> UPath:
        return _lease(self.out, self.number)

    def renew(self) -> None:
        """TemporaryError if another run has taken over; OSError if the store fails."""
        now = _seconds()
        self.write()
        self.confirm()
        self.renewed = now

    def confirm(self) -> None:
        """TemporaryError if another run has taken over."""
        latest = max(_numbers(self.out), default=0)
        if latest != self.number:
            raise TemporaryError(
                f"{self.out} was taken over by {_holder(self.out, latest) or 'another run'} while "
                f"run {self.run_id} did not answer for more than {LEASE_SECONDS:.0f} s: what it "
                "had committed stays, start it again"
            )

    def write(self, *, is_free: bool = False) -> None:
        """Write it anew, or set it free."""
        with os_errors():
            content = Holder.of_this_process(self.run_id, is_free=is_free).to_json()
            self.path.fs.pipe_file(self.path.path, content)


@contextmanager
def lease(out: UPath, run_id: str) -> Iterator[None]:
    """Hold OUT for a run. TemporaryError, with the holder and its time, if another has it."""
    held = _take(out, run_id)
    _held.append(held)
    ended = threading.Event()
    renewing = threading.Thread(target=_renew, args=(held, ended), daemon=True)
    renewing.start()
    try:
        yield
    finally:
        ended.set()
        renewing.join()
        _held.remove(held)
        with suppress(OSError):  # it will expire
            held.write(is_free=True)


def check_lease(path: OutPath) -> None:
    """TemporaryError if this process had the lease of an OUT with that path, and lost it.

    OSError if the store fails.
    """
    for held in list(_held):
        is_old = _seconds() - held.renewed > CONFIRM_SECONDS
        if is_old and is_store(path) and path.is_relative_to(held.out):
            held.renew()


def _take(out: UPath, run_id: str) -> Lease:
    numbers = _numbers(out)
    latest = max(numbers, default=0)
    former = _free_lease(out, latest) if latest else None
    taken = Lease(out, run_id, latest + 1)
    content = Holder.of_this_process(run_id).to_json()
    try:
        create(taken.path, content)
    except FileExistsError as error:
        raise TemporaryError(f"another run has just begun in {out}; try again later") from error
    except (NotImplementedError, TypeError) as error:
        raise _no_lock(out) from error
    _require_that_creating_is_exclusive(taken.path, content)
    taken.confirm()  # nobody else went on from a later number meanwhile
    if latest and _holder(out, latest) != former:
        taken.write(is_free=True)
        raise TemporaryError(f"{out} is in use by {former}, after all; try again when it has ended")
    for number in numbers:
        remove(_lease(out, number))
    return taken


def _free_lease(out: UPath, number: int) -> Holder | None:
    """What a lease says that is free; TemporaryError if it is not."""
    holder = _holder(out, number)
    if holder is None or holder.is_free or holder.is_dead:
        return holder
    if datetime.now(UTC) < holder.expires_at:
        raise TemporaryError(
            f"{out} is in use by {holder}; try again when it has ended, or, if it was killed, "
            f"after {holder.expires_at:%H:%M:%S} UTC"
        )
    time.sleep(WATCH_SECONDS)
    if _holder(out, number) != holder:
        raise TemporaryError(f"{out} is in use by {holder}; try again when it has ended")
    return holder


def _require_that_creating_is_exclusive(path: UPath, content: bytes) -> None:
    try:
        create(path, content)
    except FileExistsError:
        return
    remove(path)
    raise _no_lock(path)


def _no_lock(path: UPath) -> UsageError:
    return UsageError(
        f"{path}: this store, or the version of its package here, overwrites what it is to create "
        "only if it is not there, so that two runs could not be told apart: update it, or use "
        "another store"
    )


def _renew(held: Lease, ended: threading.Event) -> None:
    while not ended.wait(RENEW_SECONDS):
        try:
            held.renew()
        except TemporaryError:
            return  # check_lease says so
        except OSError:
            continue  # the next time it may work


def _lease(out: UPath, number: int) -> UPath:
    return out / "runs" / ".lock" / f"{number:09d}"


def _numbers(out: UPath) -> list[int]:
    folder = out / "runs" / ".lock"
    with os_errors():
        try:
            keys = folder.fs.ls(folder.path, detail=False, refresh=True)
        except FileNotFoundError:
            return []
    names = (key.rstrip("/").rpartition("/")[2] for key in keys)
    return [int(name) for name in names if name.isdecimal()]


def _holder(out: UPath, number: int) -> Holder | None:
    with os_errors():
        try:
            return Holder(**json.loads(_lease(out, number).read_bytes()))
        except FileNotFoundError:
            return None


def _machine() -> str | None:
    """What no other machine or container has, before this one starts anew; None if unknown."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"  # noqa: PTH115
    except OSError:
        return None


def _seconds() -> float:
    """Of a clock that goes on while the machine is suspended, where there is one."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
