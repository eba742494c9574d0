"""What a task draws from the purse, in the marker of its submission (worker.py).

It is written ahead of the requests, so that the driver knows it if the worker dies.
"""

import json
import secrets
from contextlib import suppress
from dataclasses import asdict

from captioner.budget import Budget, Spending
from captioner.errors import BudgetSpent
from captioner.jobs.execution.tasks.task import Task
from captioner.jobs.storage.backends.paths import OutPath


def mark(task: Task) -> None:
    """Write the marker of a submission; raise FileExistsError if it has begun before."""
    content = json.dumps({"token": secrets.token_hex(8), **asdict(Spending())})
    task.run.storage.create(task.run.started_marker(task.key), content.encode())


def budget_of(task: Task) -> Budget:
    """Return the budget of a task."""
    if not task.allowance.is_limited:
        return task.allowance.budget()
    return task.allowance.budget(lambda drawn: _draw(task, drawn))


def take_drawn(task: Task) -> Spending | None:
    """Return what a task that died has spent, at most; None if it never began.

    A worker that only seemed dead cannot draw any more: this closes the submission before it reads
    the marker, and the worker looks whether it is closed after it has written the marker.
    """
    storage, marker = task.run.storage, task.run.started_marker(task.key)
    if task.allowance.is_limited:
        with suppress(FileExistsError):
            storage.create(_closed(task))
    try:
        drawn = storage.read_bytes(marker)
    except FileNotFoundError:
        return None
    values = json.loads(drawn or b"{}")  # it may have died as it wrote the marker
    values.pop("token", None)
    return Spending(**values)


def _draw(task: Task, drawn: Spending) -> None:
    storage, marker = task.run.storage, task.run.started_marker(task.key)
    with storage.work_folder(task.run.scratch) as scratch:
        storage.write(marker, json.dumps(asdict(drawn)).encode(), scratch)
    if storage.exists(_closed(task)):
        raise BudgetSpent(f"the run goes on without this submission of part {task.name}")


def _closed(task: Task) -> OutPath:
    """Return the file that says that a submission may not draw any more."""
    return task.run.scratch / f"{task.key}.closed"
