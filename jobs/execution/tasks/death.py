"""The death of a worker process at a task: what its watchdog has written, and what follows."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from captioner.jobs.execution.tasks.task import DIED, MAX_FAILURES, Task, after_failure, apart
from captioner.jobs.storage.backends.paths import OutPath
from captioner.schemas.caption_table import Status

WATCHDOG_SECONDS = 20.0  # after a death, until the watchdog has written what it knows
SAME_MOMENT_SECONDS = 5.0
POLL_SECONDS = 0.05
MOST_ROUNDS = 4  # in which suspects are taken out of a task, before it is split
MEBIBYTE = 2**20
# Of one image. Something that kills a process every few seconds meets many an image twice while it
# is open, but hardly one five times. One at which the kernel kills the process for its memory, or
# that ends it in an orderly way, costs as many starts of a worker.
MOST_KILLED = 5
_STATUS = {"timeout": Status.TIMEOUT, "memory": Status.OUT_OF_MEMORY}  # others have crashed


@dataclass(frozen=True)
class Death:
    """What the watchdog (worker/watchdog.py) knows of a death.

    Its `kind` is timeout, memory, crashed (the process itself noticed it, as a segmentation fault),
    killed (it did not, so the reason may be outside) or died (nothing is known). To open the images
    in the rows `late` took more than `seconds`; those in the rows `suspects` were open, too, and
    may have killed the process. The limits are those of the worker, `memory` in bytes.
    """

    kind: str = "died"
    late: Sequence[int] = ()
    suspects: Sequence[int] = ()
    seconds: float = 0.0
    memory: int | None = None

    @property
    def reason(self) -> str:
        """Why the process died, as the error of a row."""
        if self.kind == "timeout":
            return f"opening it took more than {self.seconds:g} s"
        if self.kind == "memory" and self.memory:
            return f"its process needed more than {self.memory // MEBIBYTE} MiB of memory"
        return DIED


class Deaths:
    """The deaths of a run's workers, as their watchdogs describe them."""

    def __init__(self) -> None:
        self._waited_in_vain = -WATCHDOG_SECONDS  # until when

    def of(self, task: Task) -> Death:
        """Return what is known of a death; wait for it, but only once when a machine has gone."""
        is_next = time.monotonic() - self._waited_in_vain < SAME_MOMENT_SECONDS
        death = read_death(task, 0 if is_next else WATCHDOG_SECONDS)
        if death is None:
            self._waited_in_vain = time.monotonic()
        return death or Death()


def death_file(task: Task) -> OutPath:
    """Return the file that the watchdog writes about the death of a submission."""
    return task.run.scratch / f"{task.key}.death"


def read_death(task: Task, seconds: float) -> Death | None:
    """Read what the watchdog has written, or writes within that many seconds."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return Death(**json.loads(task.run.storage.read_bytes(death_file(task))))
        except FileNotFoundError:
            if time.monotonic() >= deadline:
                return None
            time.sleep(POLL_SECONDS)


def after_death(task: Task, death: Death) -> list[Task]:
    """Return the tasks to run after a death.

    An image that was late gets its row, suspects are captioned alone, the rest goes on together.
    If nobody is to blame, or nobody was in several rounds, the task is split. A process may also be
    killed from outside, so one death is no proof: an image is convicted by two in which it was
    alone, by five if the process was killed, or by one if the watchdog saw that it took too much
    memory.
    """
    is_vague = not death.suspects or task.images == 1 or task.failures >= MOST_ROUNDS
    if is_vague and not death.late:
        status = _STATUS.get(death.kind, Status.CRASHED)
        most = MOST_KILLED if death.kind == "killed" else MAX_FAILURES
        return after_failure(task, death.reason, died=True, status=status, most=most)
    failures = task.failures + (not death.late)
    late = [apart(task, [row], **_as_late(death)) for row in death.late]
    known = int(death.kind == "memory")
    alone = [apart(task, [row], failures=known) for row in death.suspects]
    rest = [row for row in task.rows if row not in {*death.late, *death.suspects}]
    return [*late, *alone, *([apart(task, rest, failures=failures)] if rest else [])]


def _as_late(death: Death) -> Mapping[str, Any]:
    return {"crash_reason": death.reason, "status": Status.TIMEOUT}
