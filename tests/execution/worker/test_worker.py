"""A task in a worker that cannot work."""

from pathlib import Path

import pytest

from captioner.jobs.errors import ExitCode
from captioner.jobs.execution.tasks.task import Task
from captioner.jobs.execution.worker import run_state
from captioner.jobs.execution.worker.worker import caption_partition
from captioner.jobs.pipeline.settings import WorkerSettings
from captioner.jobs.table.layout import OutFolder
from captioner.options import CaptionerOptions


@pytest.mark.parametrize("error", [ImportError("failed to map segment"), MemoryError()])
def test_a_captioner_that_cannot_be_loaded_is_the_fault_of_no_image(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(options: CaptionerOptions) -> None:
        raise error

    monkeypatch.setattr(run_state, "load_captioner", fail)
    run = OutFolder(tmp_path).new_run()
    run.create()
    settings = WorkerSettings(CaptionerOptions("flickr8k", "cpu"), 1000)
    result = caption_partition(Task(run, settings, 0, 4, 0, 4))
    assert result.fatal is ExitCode.FAULT
    assert result.error and "cannot load the captioner" in result.error
