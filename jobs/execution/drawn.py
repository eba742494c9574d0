"""What a task draws from the purse, in the marker of its submission (worker.py).

It is written ahead of the requests, so that the driver knows it if the worker dies.
"""

import json
from dataclasses import asdict

from captioner.budget import Budget, Spending
from captioner.errors import BudgetSpent
from captioner.jobs.execution.task import Task


def budget_of(task: Task) -> Budget:
    """Return the budget of a task."""
    if not task.allowance.is_limited:
        return task.allowance.budget()
    return task.allowance.budget(lambda drawn: _draw(task, drawn))


def take_drawn(task: Task) -> Spending | None:
    """Return what a task that died has spent, at most; None if it never began.

    The marker is removed, so that a worker that only seemed dead cannot draw any more.
    """
    storage, marker = task.run.storage, task.run.started_marker(task.key)
    if not storage.exists(marker):
        return None
    drawn = storage.read_bytes(marker)
    storage.remove(marker)
    return Spending(**json.loads(drawn)) if drawn else Spending()


def _draw(task: Task, drawn: Spending) -> None:
    storage, marker = task.run.storage, task.run.started_marker(task.key)
    if not storage.exists(marker):
        raise BudgetSpent(f"the run goes on without this submission of part {task.name}")
    with storage.work_folder(task.run.scratch) as scratch:
        storage.write(marker, json.dumps(asdict(drawn)).encode(), scratch)
