"""The driver: what runs next, and why a run stops."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from distributed import Client

from captioner.budget import Spending
from captioner.jobs import JobConfig
from captioner.jobs.errors import StaleCommit
from captioner.jobs.execution.cluster.workers import Workers
from captioner.jobs.execution.driver import _Driver
from captioner.jobs.execution.record.recorder import Recorder
from captioner.jobs.execution.tasks.purse import Purse
from captioner.jobs.execution.tasks.task import PartitionResult, Task
from captioner.jobs.pipeline.settings import WorkerSettings
from captioner.jobs.table.commits.commit import commit
from captioner.jobs.table.exclusive_writer import exclusive_writer
from captioner.jobs.table.layout import OutFolder
from captioner.options import CaptionerOptions
from captioner.schemas.caption_table import Status, file_metadata, rows_to_table
from tests.support.rows import row

SETTINGS = WorkerSettings(CaptionerOptions("openai:any"), 1000)
CONFIG = JobConfig("photos", "out", checkpoint="openai:any", max_requests=8)


@pytest.fixture
def driver(tmp_path: Path, one_worker: str) -> Iterator[_Driver]:
    """A driver with tasks of four images each, and eight requests; none is running."""
    run = OutFolder(tmp_path).new_run()
    with exclusive_writer(run) as writer, Client(one_worker) as client:
        tasks = (Task(run, SETTINGS, number, 4, 0, 4) for number in range(9))
        workers = Workers(client, 60, lambda *_, **__: None)
        yield _Driver(workers, tasks, Recorder(writer, "photos", {}), Purse(CONFIG))


def begin(driver: _Driver) -> Task:
    task = driver._next_task()
    assert task is not None
    driver.running[task.key] = task
    return task


def test_a_limit_is_reached_only_when_nothing_runs(driver: _Driver) -> None:
    task = begin(driver)
    assert driver._next_task() is None
    assert driver.recorder.stopped is None
    driver.running.clear()
    driver.purse.settle(task.allowance, Spending(requests=8))
    assert driver._next_task() is None
    assert driver.recorder.stopped == "the limit is reached: max_requests = 8"


def test_images_that_are_left_go_on_with_twice_the_allowance(driver: _Driver) -> None:
    driver.purse = Purse(replace(CONFIG, max_requests=100))
    task = begin(driver)
    assert task.allowance.requests == 8
    driver.purse.settle(task.allowance, Spending(requests=8))
    (again,) = driver.settling.settle_result(task, PartitionResult(task.name, left=[1, 2, 3]))
    assert (again.images, driver.recorder.stopped) == (3, None)
    driver.waiting.append(again)
    assert begin(driver).allowance.requests == 12


def test_the_reason_of_an_outage_stays(driver: _Driver) -> None:
    task = begin(driver)
    driver.settling.settle_result(task, PartitionResult("a", left=[3], unavailable="it is down"))
    driver.waiting += driver.settling.settle_result(task, PartitionResult("b", left=[3]))
    driver.running.clear()
    assert driver._next_task() is None
    assert (driver.recorder.stopped, driver.recorder.is_outage) == ("it is down", True)


@pytest.mark.parametrize("is_outage", [False, True])
def test_an_image_that_is_not_opened_again_waits_for_nothing(
    driver: _Driver, is_outage: bool
) -> None:
    waiting = begin(driver)
    crashed = replace(waiting, stop=1, crash_reason="it died")
    driver.waiting += [waiting, crashed]
    driver.recorder.is_outage = is_outage
    task = driver._next_task()
    assert task is not None
    assert (task.crash_reason, task.allowance.requests) == ("it died", 0)
    assert driver._next_task() is None
    assert list(driver.waiting) == [waiting]


def test_parts_that_were_committed_when_a_run_was_interrupted_count_once(driver: _Driver) -> None:
    driver.purse = Purse(replace(CONFIG, max_requests=100))
    run = driver.writer.run
    reported, committed, unfinished = (begin(driver) for _ in range(3))
    for task in (reported, committed):
        rows = [row(f"/{task.name}-{n}.jpg", run_id=run.run_id) for n in range(4)]
        commit(rows_to_table(rows, pa.table({}), file_metadata({}, None)), run, task.name)
    for task in (reported, committed, unfinished):
        driver.recorder.begin(task.key, task.name)
    driver.recorder.add(PartitionResult(reported.name, {"ok": 4}), reported.key)
    driver._count_committed()
    assert driver.recorder.statuses == {"ok": 8}
    with pytest.raises(StaleCommit):
        commit(pa.table({"a": [1]}), run, unfinished.name)


def test_a_run_stops_when_one_image_after_the_other_takes_too_long(driver: _Driver) -> None:
    late = replace(begin(driver), crash_reason="it took long", status=Status.TIMEOUT)
    results = [{"timeout": 1}] * 9 + [{"ok": 4}] + [{"timeout": 1}] * 10
    for statuses in results:
        assert not driver.recorder.is_outage
        task = late if "timeout" in statuses else replace(late, status=Status.CRASHED)
        driver.settling.settle_result(task, PartitionResult(task.name, statuses))
    assert driver.recorder.is_outage
    assert "10 images, one after the other" in str(driver.recorder.stopped)


@pytest.mark.parametrize("is_there", [False, True])
def test_missing_images_are_recorded_once_the_driver_cannot_find_them_either(
    driver: _Driver, is_there: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, refused = tmp_path / "image.jpg", []
    if is_there:
        image.touch()
    plan = pa.table({"image_uri": [str(image)], "image_version": ["1"]})
    monkeypatch.setattr("captioner.jobs.execution.worker.sight.planned", lambda task: plan)
    monkeypatch.setattr(driver.workers, "refuse", lambda *worker: refused.append(worker))
    task = begin(driver)
    result = PartitionResult(task.name, left=[2], missing=[2], worker="tls://a")
    (again,) = driver.settling.settle_result(task, result)
    assert again.records_missing != is_there
    assert refused == ([("tls://a", f"it cannot read {image}, which is there")] * is_there)


def test_a_worker_that_turns_out_to_have_another_captioner_has_done_nothing(
    driver: _Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused: list[object] = []
    monkeypatch.setattr(driver.workers, "refuse", lambda *worker: refused.append(worker))
    task = begin(driver)
    result = PartitionResult(task.name, unfit="it is another", worker="tls://a")
    (again,) = driver.settling.settle_result(task, result)
    assert (again.rows, again.key != task.key) == (task.rows, True)
    assert refused == [("tls://a", "it is another")]
