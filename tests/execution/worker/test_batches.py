"""What tasks report to the driver, and what they do without one."""

import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from captioner.jobs import JobConfig, run_job
from captioner.jobs.errors import Interrupted, Terminated
from captioner.jobs.execution import driver
from captioner.jobs.execution.worker import batches
from captioner.jobs.execution.worker.batches import TOPIC, receiving
from captioner.lstm.captioner import LstmCaptioner
from tests.support.commands import GIVE_UP_SECONDS
from tests.support.photographs import write_photographs

if TYPE_CHECKING:
    from distributed import Client


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


def test_a_task_ends_with_its_batch_if_its_run_is_over(
    job: JobConfig, one_worker: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from distributed import Client

    encode, encoded, is_over = LstmCaptioner.encode, [], threading.Event()

    def wait(captioner: LstmCaptioner, images: Any) -> Any:
        encoded.append(images)
        is_over.wait(GIVE_UP_SECONDS)
        return encode(captioner, images)

    def end(_driver: object) -> None:
        if encoded:
            raise Terminated

    monkeypatch.setattr(LstmCaptioner, "encode", wait)
    monkeypatch.setattr(driver._Driver, "_look_at_workers", end)
    write_photographs(tmp_path / "photos", 40)
    with pytest.raises(Interrupted):
        run_job(replace(job, scheduler=one_worker))
    with Client(one_worker, set_as_default=False) as client:
        deadline = time.monotonic() + GIVE_UP_SECONDS
        while task_states(client) != ["cancelled"] and time.monotonic() < deadline:
            time.sleep(0.01)
        is_over.set()
        client.submit(int, pure=False).result()  # the only thread is free again
    assert len(encoded) == 1


def task_states(client: "Client") -> list[str]:
    """Return the states of the tasks that the only worker has."""
    found = client.run(lambda dask_worker: [t.state for t in dask_worker.state.tasks.values()])
    (states,) = found.values()
    return states
