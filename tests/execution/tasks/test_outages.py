"""Outages of hosts: what is remembered of them, and what other workers make of it."""

from typing import Any

import pytest
from botocore.exceptions import ClientError

from captioner.jobs.errors import HostBusy, HostDown
from captioner.jobs.execution.tasks import outages
from captioner.jobs.execution.tasks.outages import Outages, outages_of
from captioner.jobs.execution.tasks.task import Outage
from captioner.jobs.storage.attempts.hosts import host_of, suspect
from captioner.jobs.storage.attempts.retry import Tries

REFUSAL = ClientError({"Error": {"Code": "SlowDown"}}, "GetObject")


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


def test_a_host_that_refused_an_image_of_another_worker_is_not_down_at_the_first_refusal() -> None:
    known = Outages()
    busy, down = "s3://refused-another-worker", "s3://gave-another-worker-no-answer"
    task: Any = None
    known.next(all_else_is_done=True)
    known._add(task, outages_of([HostBusy(busy, "SlowDown"), HostDown(down, "no answer")]))
    suspect(known.suspects)
    assert first_refusal(busy) > 0.0
    with pytest.raises(HostBusy):
        first_refusal(down)


def first_refusal(bucket: str) -> float:
    """Return the seconds before the second attempt, or raise HostDown."""
    host = host_of(f"{bucket}/1.jpg")
    assert host
    tries = Tries(f"{bucket}/1.jpg", host)
    tries.begin()
    return tries.failed(REFUSAL)


def test_a_host_that_refuses_an_image_and_does_not_answer_for_another_is_down() -> None:
    errors = [HostDown("s3://a", "no answer"), HostBusy("s3://a", "SlowDown")]
    assert outages_of(errors) == outages_of(errors[::-1]) == {"s3://a": Outage("no answer", 2)}


def test_a_host_that_answers_again_is_not_suspect() -> None:
    known = Outages()
    task: Any = None
    known._is_over = True
    for error in (HostDown("s3://a", "no answer"), HostBusy("s3://a", "SlowDown")):
        known._add(task, outages_of([error]))
    assert not known.suspects
    assert known._message() == (
        "s3://a refuses requests: SlowDown: use fewer workers, or run again later (2 images)"
    )
