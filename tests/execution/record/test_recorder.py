"""The counts of a run while tasks are at work."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from captioner.jobs.execution.record import at_work
from captioner.jobs.execution.record.at_work import Straggler
from captioner.jobs.execution.record.recorder import Recorder
from captioner.jobs.execution.tasks.task import PartitionResult
from captioner.jobs.planning.plan import Plan
from captioner.jobs.table.exclusive_writer import exclusive_writer
from captioner.jobs.table.layout import OutFolder


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[Recorder]:
    with exclusive_writer(OutFolder(tmp_path).new_run()) as writer:
        yield Recorder(writer, "photos", {}, plan=Plan(partition_sizes=[50, 50]))


def test_batches_count_until_their_partition_is_committed(recorder: Recorder) -> None:
    for key in ("a", "b"):
        recorder.begin(key, key)
    assert not recorder.moment().begun
    recorder.report("a", 32)
    recorder.report("b", 10)
    assert (recorder.moment().begun, recorder.moment().images) == (True, 42)
    recorder.add(PartitionResult("000000", {"ok": 48, "denied": 2}), "a")
    moment = recorder.moment()
    assert (moment.images, moment.failed) == (60, 2)
    recorder.report("a", 50)  # late
    assert recorder.moment().images == 60


def test_images_of_a_task_that_fails_count_once(recorder: Recorder) -> None:
    recorder.begin("first try", "000000")
    recorder.report("first try", 32)
    recorder.end("first try")
    recorder.begin("second try", "000000")
    recorder.report("first try", 40)  # by a worker that seemed dead
    recorder.report("second try", 8)
    assert recorder.moment().images == 8


def test_a_task_that_waits_for_long_is_named_with_its_image(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(at_work, "time", SimpleNamespace(monotonic=lambda: now))
    for key, part in (("a", "000000"), ("b", "000001"), ("in the queue", "000002")):
        recorder.begin(key, part)
    recorder.report("a", 0)
    recorder.report("b", 8)
    now += at_work.STRAGGLER_SECONDS - 1
    recorder.report("b", 16)
    recorder.report("a", None, "http://slow.example/1.jpg")
    assert not recorder.moment().waiting
    now += 2
    late = Straggler("000000", 61, "http://slow.example/1.jpg")
    assert recorder.moment().waiting == [late]
    recorder.report("a", 40)
    assert not recorder.moment().waiting
    now += 61
    assert [each.part for each in recorder.moment().waiting] == ["000001", "000000"]


def test_reports_of_other_runs_are_ignored(recorder: Recorder) -> None:
    recorder.report("another run's", 32)
    assert recorder.moment().images == 0 and not recorder.moment().begun
