"""The lock of an OUT on a store: one run at a time, for as long as it renews its lease.

A store frees no lock when a process dies, but it can create an object only if none has that name.
So leases are numbered objects, `OUT/runs/.lock/000000001` and so on, and the highest number owns
OUT. Whoever takes over creates the next number, which only one process can do. Only its holder
writes to a lease, so no write can undo a later one.

A thread renews the lease. A lease is free if its holder has ended, if its holder was a process of
this machine that no longer exists, or if it was not renewed for LEASE_SECONDS and then for another
WATCH_SECONDS in which the next run watches, so that clocks need not agree.

To renew is to write the lease, then to look for the next number; a run that finds it has lost OUT.
To take over is to create that number, then to check that the former lease was not written
meanwhile. So if two runs do both at once, one gives way. Before a run writes to the table, it also
renews a lease older than CONFIRM_SECONDS. What remains is a run that sleeps through a whole lease
between that and the write; jobs/table/README.md says what happens then.
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
from captioner.jobs.storage.failures import WrongOptions, store_errors

LEASE_SECONDS = 90.0
RENEW_SECONDS = 15.0
CONFIRM_SECONDS = 30.0
WATCH_SECONDS = 30.0


@dataclass(frozen=True)
class Holder:
    """The run that holds a lease, as the lease names it."""

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
        """Whether the holder was a process of this machine that no longer exists."""
        return self.machine is not None and self.machine == _machine() and _is_gone(self.process)


def _is_gone(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # another user's
        return False
    return False


def _seconds() -> float:
    """Return the time of a clock that, if possible, also runs while the machine is suspended."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


@dataclass
class Lease:
    """A lease that this process holds; `folder` holds the leases of OUT."""

    folder: UPath
    out: UPath
    run_id: str
    number: int
    renewed: float = field(default_factory=_seconds)

    @property
    def path(self) -> UPath:
        return _lease(self.folder, self.number)

    def confirm(self) -> None:
        """Renew the lease if CONFIRM_SECONDS have passed; raise TemporaryError if it is lost."""
        if _seconds() - self.renewed > CONFIRM_SECONDS:
            self.renew()

    def renew(self) -> None:
        """Renew the lease; TemporaryError if another run took over, StoreError if that fails."""
        now = _seconds()
        self.write()
        self.check_is_latest()
        self.renewed = now

    def check_is_latest(self) -> None:
        """Raise TemporaryError if another run has taken over."""
        latest = max(_numbers(self.folder), default=0)
        if latest != self.number:
            raise TemporaryError(
                f"{self.out} was taken over by {_holder(self.folder, latest) or 'another run'} "
                f"while run {self.run_id} did not answer for more than {LEASE_SECONDS:.0f} s: what "
                "it committed stays; start it again"
            )

    def create(self) -> None:
        """Create the object; raise FileExistsError if it exists."""
        with store_errors():
            self.path.fs.pipe_file(self.path.path, self._content(), mode="create")

    def write(self, *, is_free: bool = False) -> None:
        """Renew the lease, or set it free."""
        with store_errors():
            self.path.fs.pipe_file(self.path.path, self._content(is_free))

    def remove(self) -> None:
        with suppress(FileNotFoundError), store_errors():
            self.path.fs.rm_file(self.path.path)

    def _content(self, is_free: bool = False) -> bytes:
        return json.dumps(vars(Holder.of_this_process(self.run_id, is_free=is_free))).encode()


@contextmanager
def lease(folder: UPath, out: UPath, run_id: str) -> Iterator[Lease]:
    """Hold OUT for a run; raise TemporaryError that names the holder if another run has it."""
    held = _take(folder, out, run_id)
    ended = threading.Event()
    renewing = threading.Thread(target=_renew, args=(held, ended), daemon=True)
    renewing.start()
    try:
        yield held
    finally:
        ended.set()
        renewing.join()
        with suppress(OSError):  # it will expire
            held.write(is_free=True)


def _take(folder: UPath, out: UPath, run_id: str) -> Lease:
    numbers = _numbers(folder)
    latest = max(numbers, default=0)
    former = _free_lease(folder, out, latest) if latest else None
    taken = Lease(folder, out, run_id, latest + 1)
    try:
        taken.create()
    except FileExistsError as error:
        raise TemporaryError(f"another run has just begun in {out}; try again later") from error
    except (NotImplementedError, WrongOptions) as error:
        raise _no_lock(out) from error
    _require_exclusive_create(taken)
    taken.check_is_latest()
    if latest and _holder(folder, latest) != former:
        taken.write(is_free=True)
        raise TemporaryError(
            f"{out} is still in use by {former}; try again when that run has ended"
        )
    for number in numbers:
        Lease(folder, out, run_id, number).remove()
    return taken


def _free_lease(folder: UPath, out: UPath, number: int) -> Holder | None:
    """Return the holder of a lease that is free; raise TemporaryError if it is not."""
    holder = _holder(folder, number)
    if holder is None or holder.is_free or holder.is_dead:
        return holder
    if datetime.now(UTC) < holder.expires_at:
        raise TemporaryError(
            f"{out} is in use by {holder}; try again when that run has ended or, if it was "
            f"killed, after {holder.expires_at:%H:%M:%S} UTC"
        )
    time.sleep(WATCH_SECONDS)
    if _holder(folder, number) != holder:
        raise TemporaryError(f"{out} is in use by {holder}; try again when that run has ended")
    return holder


def _require_exclusive_create(taken: Lease) -> None:
    """Raise UsageError if the store lets the same lease be created twice."""
    try:
        taken.create()
    except FileExistsError:
        return
    taken.remove()
    raise _no_lock(taken.path)


def _no_lock(path: UPath) -> UsageError:
    return UsageError(
        f"{path}: this store, or the version of its package here, does not support "
        "create-if-absent, which keeps two runs apart: upgrade the package or use another store"
    )


def _renew(held: Lease, ended: threading.Event) -> None:
    while not ended.wait(RENEW_SECONDS):
        try:
            held.renew()
        except TemporaryError:
            return  # `confirm` will raise it
        except OSError:
            continue  # the next attempt may work


def _lease(folder: UPath, number: int) -> UPath:
    return folder / f"{number:09d}"


def _numbers(folder: UPath) -> list[int]:
    try:
        with store_errors():
            keys = folder.fs.ls(folder.path, detail=False, refresh=True)
    except FileNotFoundError:
        return []
    names = (key.rstrip("/").rpartition("/")[2] for key in keys)
    return [int(name) for name in names if name.isdecimal()]


def _holder(folder: UPath, number: int) -> Holder | None:
    path = _lease(folder, number)
    try:
        with store_errors():
            return Holder(**json.loads(path.fs.cat_file(path.path)))
    except FileNotFoundError:
        return None


def _machine() -> str | None:
    """Return an id of this machine or container since it was booted; None if unknown."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"  # noqa: PTH115
    except OSError:
        return None
