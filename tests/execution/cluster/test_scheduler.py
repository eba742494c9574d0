"""Where the scheduler of a cluster is, and what may be sent to its workers."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from captioner.jobs import JobConfig, run_job
from captioner.jobs.errors import ExitCode, JobError, TemporaryError, UsageError
from captioner.jobs.execution.cluster.scheduler import (
    check_sendable,
    connect_scheduler,
    scheduler_address,
    sendable,
)
from captioner.jobs.pipeline.settings import worker_settings
from captioner.jobs.preview import preview_job

SECRET = {"s3": {"secret": "hush"}}


def test_a_scheduler_is_an_address_a_file_or_in_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "scheduler.json"
    file.write_text('{"address": "tls://host:1"}')
    monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", "tcp://other:2")
    assert scheduler_address("tcp://host:8786") == "tcp://host:8786"
    assert scheduler_address("host:8786") == "tcp://host:8786"
    assert scheduler_address(str(file)) == "tls://host:1"
    assert scheduler_address("env") == "tcp://other:2"


def test_a_scheduler_that_is_nowhere_is_an_error_that_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "scheduler.json"
    with pytest.raises(TemporaryError, match="dask scheduler --scheduler-file"):
        scheduler_address(str(file))
    file.write_text("{}")
    monkeypatch.delenv("DASK_SCHEDULER_ADDRESS", raising=False)
    for scheduler, message in ((str(file), "not a file of a Dask scheduler"), ("env", "not set")):
        with pytest.raises(UsageError, match=message):
            scheduler_address(scheduler)


@pytest.mark.parametrize(
    ("scheduler", "message"),
    [
        ("tls://127.0.0.1:1", "needs certificates"),
        ("tpc://host:1", "unknown address scheme 'tpc'"),
        ("tcp://host", "missing port"),
    ],
)
def test_an_address_that_nobody_could_reach_is_not_tried(scheduler: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        connect_scheduler(scheduler)


@pytest.mark.parametrize(
    ("scheduler", "error", "message"),
    [
        ("env", UsageError, "--scheduler env: the variable DASK_SCHEDULER_ADDRESS is not set"),
        ("broken.json", UsageError, "broken.json is not a file of a Dask scheduler"),
        ("nowhere.json", TemporaryError, "no file nowhere.json"),
        ("tcp://127.0.0.1:1", TemporaryError, "no Dask scheduler answers at tcp://127.0.0.1:1"),
    ],
)
@pytest.mark.parametrize("work", [run_job, preview_job])
def test_a_scheduler_is_looked_for_before_the_images(
    work: Callable[[JobConfig], object],
    scheduler: str,
    error: type[JobError],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(_config: JobConfig) -> None:
        raise AssertionError("listed")

    monkeypatch.setattr("captioner.jobs.execution.cluster.scheduler.CONNECT_SECONDS", 0.5)
    monkeypatch.setattr("captioner.jobs.run.list_images", fail)
    monkeypatch.setattr("captioner.jobs.preview.list_images", fail)
    monkeypatch.delenv("DASK_SCHEDULER_ADDRESS", raising=False)
    monkeypatch.chdir(tmp_path)
    Path("broken.json").write_text("{}")
    with pytest.raises(error, match=f"^{re.escape(message)}"):
        work(JobConfig("photos", tmp_path / "out", scheduler=scheduler, quiet=True))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("scheduler", ["tcp://127.0.0.1:1", "tls://host:1", "inproc://a", None])
def test_secrets_are_not_sent_in_the_clear(
    scheduler: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "hush")
    plain = JobConfig("photos", "out", checkpoint="openai:any", scheduler=scheduler)
    job = replace(plain, storage_options=SECRET)
    if scheduler == "tcp://127.0.0.1:1":
        with pytest.raises(JobError, match="not encrypted: use a scheduler with TLS") as caught:
            sendable(job, worker_settings(job))
        assert "hush" not in str(caught.value)
        assert sendable(plain, worker_settings(plain)).captioner.api_key is None
        job = replace(job, send_secrets=True)
    assert sendable(job, worker_settings(job)) == worker_settings(job)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("image_access", {"url": "https://h/a.jpg?sig=hush", "refused": None}),
        ("image_member", {"container": "https://h/x.tar?sig=hush", "offset": 0, "size": 1}),
    ],
)
def test_signed_urls_of_a_sample_are_not_sent_in_the_clear(
    name: str, value: dict[str, object]
) -> None:
    images = pa.table(
        {"image_uri": ["a"], "image_version": pa.nulls(1, pa.string()), name: [value]}
    )
    job = JobConfig("photos", "out", scheduler="tcp://127.0.0.1:1")
    with pytest.raises(JobError, match=r"signed URLs, and tcp:.* is not encrypted") as caught:
        check_sendable(job, images)
    assert caught.value.exit_code == ExitCode.FAULT  # a plan says so, and counts all the same
    assert "hush" not in str(caught.value)
    for sent in (replace(job, send_secrets=True), replace(job, scheduler="tls://host:1")):
        check_sendable(sent, images)
    check_sendable(replace(job, scheduler=None), images)
    check_sendable(job, images.drop_columns([name]))
