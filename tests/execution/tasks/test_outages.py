"""Outages of many hosts: what is remembered of them does not grow without end."""

from typing import Any

import pytest

from captioner.jobs.execution.tasks import outages
from captioner.jobs.execution.tasks.outages import Outages
from captioner.jobs.execution.tasks.task import Outage


def test_the_troubles_of_a_bounded_number_of_hosts_are_remembered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(outages, "MOST_TROUBLES", 3)
    known = Outages()
    assert known.next(all_else_is_done=True) is None
    task: Any = None  # which is not run again, as all else is done
    for number in range(10):
        known._add(task, {f"https://{number}.example": Outage("no connection", 10 - number)})
    assert set(known.suspects) == {f"https://{number}.example" for number in (7, 8, 9)}
    assert known.left == {
        **{f"https://{number}.example": 10 - number for number in range(3)},
        outages.OTHERS: sum(range(1, 8)),
    }
    assert known._message().startswith("https://0.example does not answer (10 images); ")
    assert known._message().endswith("; and at least 1 more host")
