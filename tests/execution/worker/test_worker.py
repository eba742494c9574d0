"""A task in a worker that cannot work."""

import errno
from pathlib import Path

import pytest

from captioner.errors import CaptionerUnavailable, CheckpointError
from captioner.jobs.errors import ExitCode
from captioner.jobs.execution.tasks.task import PartitionResult, Task
from captioner.jobs.execution.worker import run_state
from captioner.jobs.execution.worker.worker import caption_partition
from captioner.jobs.pipeline.settings import WorkerSettings
from captioner.jobs.table.layout import OutFolder
from captioner.options import CaptionerOptions

ERRORS = [
    ImportError("failed to map segment"),
    MemoryError(),
    OSError(errno.ESTALE, "Stale file handle"),
    RuntimeError("CUDA-capable devices are busy"),
    CheckpointError("model.safetensors: cannot be read"),
    CaptionerUnavailable("the server does not answer"),
]


def result_of_loading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, identity: str | None
) -> PartitionResult:
    """Return the result of a task whose worker fails to load the captioner."""

    def fail(options: CaptionerOptions) -> None:
        raise error

    monkeypatch.setattr(run_state, "load_captioner", fail)
    run = OutFolder(tmp_path).new_run()
    run.create()
    settings = WorkerSettings(CaptionerOptions("flickr8k", "cpu"), 1000, identity=identity)
    return caption_partition(Task(run, settings, 0, 4, 0, 4))


@pytest.mark.parametrize("error", ERRORS, ids=repr)
def test_a_captioner_that_cannot_be_loaded_is_the_fault_of_no_image(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = result_of_loading(tmp_path, monkeypatch, error, None)
    codes = {CheckpointError: ExitCode.USAGE, CaptionerUnavailable: ExitCode.TEMPORARY}
    assert result.fatal is codes.get(type(error), ExitCode.FAULT)
    assert result.error and all(str(part) in result.error for part in error.args)
    assert ("more memory" in result.error) == isinstance(error, MemoryError)


@pytest.mark.parametrize("error", ERRORS, ids=repr)
def test_a_cluster_goes_on_without_a_worker_that_cannot_load_the_captioner(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = result_of_loading(tmp_path, monkeypatch, error, "tiny@0123456789ab")
    if isinstance(error, CaptionerUnavailable):  # the server of all workers
        assert result.fatal is ExitCode.TEMPORARY
    else:
        assert result.fatal is result.error is None
        assert result.unfit and result.unfit.startswith("it cannot load the captioner (")


def test_a_captioner_that_has_changed_since_the_run_began_ends_it(
    tmp_path: Path, tiny_checkpoint: Path
) -> None:
    run = OutFolder(tmp_path).new_run()
    run.create()
    options = CaptionerOptions(str(tiny_checkpoint), "cpu")
    settings = WorkerSettings(options, 1000, planned_identity="tiny@0123456789ab")
    result = caption_partition(Task(run, settings, 0, 4, 0, 4))
    assert result.fatal is ExitCode.TEMPORARY
    assert result.error and "has changed since the run began, from tiny@0123" in result.error
