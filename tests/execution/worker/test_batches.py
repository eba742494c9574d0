"""What tasks report to the driver."""

import time
from types import SimpleNamespace

import pytest

from captioner.jobs.execution.worker import batches
from captioner.jobs.execution.worker.batches import TOPIC, receiving
from tests.support.commands import GIVE_UP_SECONDS


def test_reports_arrive_while_someone_listens_even_if_the_scheduler_goes(one_worker: str) -> None:
    from distributed import Client

    received: list[tuple[str, int]] = []
    with (
        Client(one_worker, set_as_default=False) as client,
        receiving(client, lambda key, done: received.append((key, done))),
    ):
        deadline = time.monotonic() + GIVE_UP_SECONDS
        while not received and time.monotonic() < deadline:
            client.log_event(TOPIC, ["a task", 32])  # the scheduler may not know the listener yet
            time.sleep(0.01)
        client.close()
    assert set(received) == {("a task", 32)}


def test_a_task_reports_its_start_and_then_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[int] = []
    report = batches._seldom(sent.append, batches.SECONDS)
    for seconds, done in [(100.0, 0), (100.1, 8), (100.4, 16), (100.6, 24), (100.7, 32)]:
        monkeypatch.setattr(batches, "time", SimpleNamespace(monotonic=lambda now=seconds: now))
        report(done)
    assert sent == [0, 24]
