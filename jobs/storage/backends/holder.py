"""The run that holds an OUT on a store, and whether it may still be at work."""

import os
import secrets
import socket
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

LEASE_SECONDS = 90.0
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
    token: str = ""  # of this very write, whose answer may be lost

    @classmethod
    def of_this_process(cls, run_id: str, *, is_free: bool = False) -> "Holder":
        now = datetime.now(UTC).isoformat(timespec="seconds")
        token = secrets.token_hex(8)
        return cls(run_id, os.getpid(), socket.gethostname(), _machine(), now, is_free, token)

    def __str__(self) -> str:
        return f"run {self.run_id}, process {self.process} on {self.host}"

    @property
    def expires_at(self) -> datetime:
        return datetime.fromisoformat(self.renewed_at) + timedelta(seconds=LEASE_SECONDS)

    @property
    def seconds_left(self) -> float:
        """For how long the lease holds, by the clocks of its holder and of this machine."""
        return (self.expires_at - datetime.now(UTC)).total_seconds()

    @property
    def is_of_the_future(self) -> bool:
        """Whether one of the two clocks must have been wrong."""
        return self.seconds_left > LEASE_SECONDS + WATCH_SECONDS

    @property
    def watched_seconds(self) -> float:
        """For how long a lease that was not renewed is watched before it is taken over."""
        return WATCH_SECONDS + (LEASE_SECONDS if self.is_of_the_future else 0.0)

    @property
    def is_dead(self) -> bool:
        """Whether the holder was a process of this machine that no longer exists."""
        return self.machine is not None and self.machine == _machine() and _is_gone(self.process)

    @property
    def seems_alive(self) -> bool:
        """Whether the holder may be at work: as far as this clock knows, its lease holds."""
        return not self.is_dead and self.seconds_left > 0


def _is_gone(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # another user's
        return False
    return False


def _machine() -> str | None:
    """Return an id of this machine or container since it was booted; None if unknown."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"  # noqa: PTH115
    except OSError:
        return None
