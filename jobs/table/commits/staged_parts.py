"""Parts on a store: workers stage them, and the driver, which holds the lease, publishes them.

So no fence is needed: what a worker stages after the end of its run or task is never published.
"""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from captioner.jobs.storage.backends.backend import Lock
from captioner.jobs.storage.backends.paths import OutPath
from captioner.jobs.table.layout import RunFolder


@dataclass(frozen=True)
class StagedParts:
    """The parts of a run on a store; see FencedParts for its methods."""

    run: RunFolder

    def path(self, name: str, *, replaces: bool = False) -> OutPath:
        return self.run.scratch / "parts" / self.run.part(name, replaces=replaces).name

    def begin(self) -> None:
        """Do nothing: the lease keeps other runs out."""

    def end(self) -> None:
        """Do nothing: only this process publishes."""

    def revoke(self, name: str, *, replaces: bool = False) -> bool:
        return not self.run.storage.exists(self.path(name, replaces=replaces))

    def permission(self, name: str) -> AbstractContextManager[None]:
        return nullcontext()

    def publish(self, name: str, lock: Lock, *, replaces: bool = False) -> None:
        lock.confirm()
        part = self.run.part(name, replaces=replaces)
        self.run.storage.copy(self.path(name, replaces=replaces), part)
