"""The lock of an OUT on a store: one run at a time, for as long as it renews its lease.

A store frees no lock when a process dies, but it can create an object only if none has that name.
So leases are numbered objects, `OUT/runs/.lock/000000001` and so on, and the highest number owns
OUT. Whoever takes over creates the next number, which only one process can do. Only its holder
writes to a lease, so no write can undo a later one.

A thread renews the lease. A lease is free if its holder has ended, if its holder was a process of
this machine that no longer exists, or if it was not renewed for LEASE_SECONDS and then for another
WATCH_SECONDS in which the next run watches, so that clocks need not agree. If it seems to hold for
much longer than that, a clock was wrong, and the next run watches for all of that time.

To renew is to write the lease, then to look for the next number; a run that finds it has lost OUT.
To take over is to create that number, then to check that the former lease was not written
meanwhile. So if two runs do both at once, one gives way. Before a run writes to the table, it also
renews a lease older than CONFIRM_SECONDS. What remains is a run that sleeps through a whole lease
between that and the write; jobs/table/README.md says what happens then.
"""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from upath import UPath

from captioner.jobs.clock import steady_seconds
from captioner.jobs.errors import TemporaryError, UsageError
from captioner.jobs.storage.backends.holder import LEASE_SECONDS, Holder
from captioner.jobs.storage.failures import WrongOptions

if TYPE_CHECKING:
    from captioner.jobs.storage.backends.object_store import ObjectStore

RENEW_SECONDS = 15.0
CONFIRM_SECONDS = 30.0
LOOK_SECONDS = 5.0  # between two looks at a lease that is watched


@dataclass
class Lease:
    """A lease that this process holds; `folder` holds the leases of OUT."""

    store: "ObjectStore"
    folder: UPath
    out: UPath
    run_id: str
    number: int
    renewed: float = field(default_factory=steady_seconds)

    @property
    def path(self) -> UPath:
        return self.folder / f"{self.number:09d}"

    def confirm(self) -> None:
        """Renew the lease if CONFIRM_SECONDS have passed; raise TemporaryError if it is lost."""
        if steady_seconds() - self.renewed > CONFIRM_SECONDS:
            self.renew()

    def renew(self) -> None:
        """Renew the lease; TemporaryError if another run took over, StoreError if that fails."""
        now = steady_seconds()
        self.write()
        self.check_is_latest()
        self.renewed = now

    def check_is_latest(self) -> None:
        """Raise TemporaryError if another run has taken over."""
        latest = max(_numbers(self.store, self.folder), default=0)
        if latest != self.number:
            holder = replace(self, number=latest).holder() or "another run"
            raise TemporaryError(
                f"{self.out} was taken over by {holder} "
                f"while run {self.run_id} did not answer for more than {LEASE_SECONDS:.0f} s: what "
                "it committed stays; start it again"
            )

    def create(self) -> None:
        """Create the object; raise FileExistsError if it exists."""
        self.store.create(self.path, self._content())

    def write(self, *, is_free: bool = False) -> None:
        """Renew the lease, or set it free."""
        self.store.write(self.path, self._content(is_free))

    def holder(self) -> Holder | None:
        """Read who holds the lease of this number; None if it does not exist."""
        with suppress(FileNotFoundError):
            return Holder(**json.loads(self.store.read_bytes(self.path)))
        return None

    def _content(self, is_free: bool = False) -> bytes:
        return json.dumps(vars(Holder.of_this_process(self.run_id, is_free=is_free))).encode()


@contextmanager
def lease(store: "ObjectStore", folder: UPath, out: UPath, run_id: str) -> Iterator[Lease]:
    """Hold OUT for a run; raise TemporaryError that names the holder if another run has it."""
    held = _take(store, folder, out, run_id)
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


def latest_holder(store: "ObjectStore", folder: UPath) -> Holder | None:
    """Return the last run that held OUT, as its lease has it; None without one."""
    number = max(_numbers(store, folder), default=0)
    return Lease(store, folder, folder, "", number).holder() if number else None


def _take(store: "ObjectStore", folder: UPath, out: UPath, run_id: str) -> Lease:
    numbers = _numbers(store, folder)
    latest = Lease(store, folder, out, run_id, max(numbers, default=0))
    former = _free_holder(latest) if latest.number else None
    taken = replace(latest, number=latest.number + 1)
    try:
        taken.create()
    except FileExistsError as error:
        raise TemporaryError(f"another run has just begun in {out}; try again later") from error
    except (NotImplementedError, WrongOptions) as error:
        raise _no_lock(out) from error
    _require_exclusive_create(taken)
    taken.check_is_latest()
    if latest.number and latest.holder() != former:
        taken.write(is_free=True)
        raise TemporaryError(
            f"{out} is still in use by {former}; try again when that run has ended"
        )
    for number in numbers:
        store.remove(replace(latest, number=number).path)
    return taken


def _free_holder(lease: Lease) -> Holder | None:
    """Return the former holder of a lease that is free; raise TemporaryError if it is not."""
    holder = lease.holder()
    if holder is None or holder.is_free or holder.is_dead:
        return holder
    if holder.seconds_left > 0 and not holder.is_of_the_future:
        raise TemporaryError(
            f"{lease.out} is in use by {holder}; try again when that run has ended or, if it was "
            f"killed, after {holder.expires_at:%H:%M:%S} UTC"
        )
    left = holder.watched_seconds
    end = steady_seconds() + left
    while left >= 0:
        time.sleep(min(left, LOOK_SECONDS))
        left = end - steady_seconds()
        if lease.holder() != holder:
            raise TemporaryError(
                f"{lease.out} is in use by {holder}; try again when that run has ended"
            )
    return holder


def _require_exclusive_create(taken: Lease) -> None:
    """Raise UsageError if the store lets the same lease be created twice."""
    try:
        taken.create()
    except FileExistsError:
        return
    taken.store.remove(taken.path)
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


def _numbers(store: "ObjectStore", folder: UPath) -> list[int]:
    return [int(path.name) for path in store.files(folder, "*") if path.name.isdecimal()]
