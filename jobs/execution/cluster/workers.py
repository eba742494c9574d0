"""The workers of a run: which of them may have tasks, and what happens when there is none."""

import asyncio
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future

from distributed import Client

from captioner.jobs.errors import TemporaryError
from captioner.jobs.execution.cluster.fitness import Wanted, unfitness
from captioner.jobs.messages import how_many, warn
from captioner.jobs.storage.failures import without_secrets

HINT_SECONDS = 15.0  # without a worker, until that is said
POLL_SECONDS = 0.5  # during a run
WAIT_SECONDS = 0.1  # before it begins
CHECK_SECONDS = 20.0  # for all workers that are there, if one is fit already
PAUSE_SECONDS = 5.0  # until it is asked again which of them pause
Record = Callable[..., None]  # an event, and details
Tell = Callable[..., None]  # `tell`, perhaps with a record


def tell(record: Record | None, event: str, line: str, **details: str) -> None:
    """Say a line on stderr and record the event."""
    warn(without_secrets(line), event, details)
    if record:
        record(event, **details)


class Workers:
    """The workers that a client reaches. If they must be as `wanted`, others have no task.

    `threads` has the threads of those that may have tasks, by address; others are `present`, too.
    `patience` is in seconds.
    """

    def __init__(
        self, client: Client, patience: float, tell: Tell, wanted: Wanted | None = None
    ) -> None:
        self.client = client
        self.threads: dict[str, int] = {}
        self.present: set[str] = set()
        assert client.loop is not None
        self._loop = client.loop.asyncio_loop  # type: ignore[attr-defined]  # tornado's
        self._patience, self._tell, self._wanted = patience, tell, wanted
        self._checks: dict[str, Future[str | None]] = {}
        self._refused: dict[str, str] = {}  # reason, by address
        self._paused: set[str] = set()
        self._ask_paused_at = time.monotonic()
        self._lacking_since: float | None = None
        self._has_hinted = False

    @property
    def identity(self) -> str | None:
        """The captioner that workers must have; None if they have this machine's."""
        return self._wanted.identity if self._wanted else None

    @property
    def addresses(self) -> list[str] | None:
        """The workers that may have tasks; None if all may, even those that will join."""
        return None if self._wanted is None else [*self.threads]

    def wait(self) -> None:
        """Wait until a worker may have tasks, and a moment for others that are being checked.

        Raise TemporaryError if none may within the patience.
        """
        self.update()
        end = time.monotonic() + CHECK_SECONDS
        while not self.threads or (self._are_checking and time.monotonic() < end):
            time.sleep(WAIT_SECONDS)
            self.update()

    @property
    def _are_checking(self) -> bool:
        return not all(check.done() for check in self._checks.values())

    def update(self) -> None:
        """See which workers have joined, left, or been checked.

        Raise TemporaryError if no worker could have a task for longer than the patience, or if the
        scheduler has gone.
        """
        present = self._look()
        self.present = {*present}
        if self._wanted is None:
            self.threads = present
        else:
            self._check(present, self._wanted)
            fit = [address for address, check in self._checks.items() if _is_fit(check)]
            unfit = self._refused.keys() | self._paused
            self.threads = {address: present[address] for address in fit if address not in unfit}
        self._wait_no_longer_than_patience(present)

    def refuse(self, address: str, reason: str) -> None:
        """Give a worker no more tasks, and say why."""
        if self._wanted is None or address in self._refused:
            return
        self._refused[address] = reason
        self.threads.pop(address, None)
        line = f"worker {address} refused: {reason}"
        self._tell("worker_refused", line, worker=address, reason=reason)

    def _look(self) -> dict[str, int]:
        try:
            if self._wanted is not None and time.monotonic() >= self._ask_paused_at:
                self._paused = self._idle_and_paused()
                self._ask_paused_at = time.monotonic() + PAUSE_SECONDS
            return dict(self.client.nthreads())
        except (OSError, TimeoutError) as error:
            raise TemporaryError("the connection to the Dask scheduler was lost") from error

    def _idle_and_paused(self) -> set[str]:
        """Return the workers that Dask gives no task, and that work on none."""
        assert self.client.scheduler is not None
        workers = self.client.sync(self.client.scheduler.identity)["workers"]
        return {
            address
            for address, worker in workers.items()
            if worker["status"] == "paused" and not worker["metrics"].get("executing")
        }

    def _check(self, present: Mapping[str, int], wanted: Wanted) -> None:
        for known in (self._checks, self._refused):
            for address in known.keys() - present.keys():  # what joins there later is another one
                del known[address]
        for address in present.keys() - self._checks.keys():
            asking = unfitness(self.client, address, wanted)
            self._checks[address] = asyncio.run_coroutine_threadsafe(asking, self._loop)
        for address, check in [*self._checks.items()]:
            if not check.done():
                continue
            if isinstance(check.exception(), OSError):
                del self._checks[address]  # it is asked again
            elif (reason := check.result()) is not None:
                self.refuse(address, reason)

    def _wait_no_longer_than_patience(self, present: Mapping[str, int]) -> None:
        if self.threads:
            self._lacking_since, self._has_hinted = None, False
            return
        now = time.monotonic()
        self._lacking_since = self._lacking_since or now
        waited = now - self._lacking_since
        if waited >= self._patience:
            raise TemporaryError(f"{self._lack(present)} (waited {self._patience:g} s)")
        if not self._has_hinted and waited >= min(HINT_SECONDS, self._patience / 2):
            self._has_hinted = True
            lack = self._lack(present)
            self._tell("no_worker", f"{lack}; waiting for up to {self._patience:g} s", reason=lack)

    def _lack(self, present: Mapping[str, int]) -> str:
        """Return why no worker has tasks."""
        if not present:
            scheduler = self.client.scheduler
            return f"no worker is connected to {scheduler.address if scheduler else 'Dask'}"
        others = present.keys() - self._refused.keys()
        if others and others <= self._paused:
            return (
                f"Dask has paused {how_many(len(others), 'worker')} for using more than a worker's "
                "share of memory: give workers more (--memory-limit), or restart them"
            )
        if others:
            return f"no answer from {how_many(len(others), 'worker')}, which may be busy"
        workers = f"all {len(present):,} workers are" if len(present) > 1 else "the only worker is"
        return f"{workers} refused: {next(iter(self._refused.values()))}"


def _is_fit(check: "Future[str | None]") -> bool:
    return check.done() and check.exception() is None and check.result() is None
