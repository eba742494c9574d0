"""What a task draws: a worker that only seems dead cannot spend what the driver does not know."""

from pathlib import Path
from typing import Any

import pytest

from captioner.budget import Spending
from captioner.errors import BudgetSpent
from captioner.jobs.execution.tasks.drawn import budget_of, mark, take_drawn
from captioner.jobs.execution.tasks.purse import Allowance
from captioner.jobs.execution.tasks.task import Task
from captioner.jobs.pipeline.settings import WorkerSettings
from captioner.jobs.storage.backends.local_folder import LocalFolder
from captioner.jobs.table.layout import OutFolder
from captioner.options import CaptionerOptions

SETTINGS = WorkerSettings(CaptionerOptions("openai:any"), 1000)


@pytest.fixture
def task(tmp_path: Path) -> Task:
    """A task that may spend 50 requests."""
    run = OutFolder(tmp_path).new_run()
    run.create()
    return Task(run, SETTINGS, 0, 9, 0, 9, allowance=Allowance(requests=50))


begin = mark  # what a worker does when it begins a task


def test_what_a_dead_worker_has_drawn_is_known(task: Task) -> None:
    assert take_drawn(task) is None
    begin(task)
    assert take_drawn(task) == Spending()


def test_a_block_counts_as_spent(task: Task) -> None:
    begin(task)
    budget_of(task).begin()
    assert take_drawn(task) == Spending(requests=32)


def test_a_worker_that_seemed_dead_before_it_began_sends_nothing(task: Task) -> None:
    assert take_drawn(task) is None
    begin(task)
    with pytest.raises(BudgetSpent, match="goes on without this submission"):
        budget_of(task).begin()


@pytest.mark.parametrize("is_late", [False, True])
def test_a_worker_cannot_draw_what_the_driver_does_not_see(
    task: Task, monkeypatch: pytest.MonkeyPatch, is_late: bool
) -> None:
    begin(task)
    taken: list[Spending | None] = []
    write = LocalFolder.write

    def write_while_the_driver_looks(self: LocalFolder, *arguments: Any) -> None:
        if is_late:
            write(self, *arguments)
        taken.append(take_drawn(task))
        if not is_late:
            write(self, *arguments)

    monkeypatch.setattr(LocalFolder, "write", write_while_the_driver_looks)
    with pytest.raises(BudgetSpent, match="goes on without this submission"):
        budget_of(task).begin()
    assert taken == [Spending(requests=32 if is_late else 0)]
