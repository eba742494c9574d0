"""Limits of the shell that are too low for a job."""

import resource
from pathlib import Path

import pytest

from captioner.jobs import JobConfig, run_job
from captioner.jobs.errors import UsageError
from captioner.jobs.execution.cluster.limits import MIN_ADDRESSES, allow_files
from captioner.jobs.preview import preview_job
from tests.support.photographs import write_photographs


@pytest.fixture
def job(tmp_path: Path, tiny_checkpoint: Path) -> JobConfig:
    photos = write_photographs(tmp_path / "photos", 1)
    return JobConfig(photos, tmp_path / "out", checkpoint=tiny_checkpoint, quiet=True)


def test_too_few_addresses_are_an_error_that_names_the_limit(
    job: JobConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (MIN_ADDRESSES - 1, MIN_ADDRESSES))
    assert_refused(job, r"`ulimit -v` allows 6,291,455 kB .*: raise it")


@pytest.mark.parametrize("files", [20, 47])
def test_too_few_open_files_are_an_error_that_names_the_limit(
    job: JobConfig, monkeypatch: pytest.MonkeyPatch, files: int
) -> None:
    files_only = {resource.RLIMIT_NOFILE: (files, files)}
    unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    monkeypatch.setattr(resource, "getrlimit", lambda kind: files_only.get(kind, unlimited))
    needs = "a run needs 48 with --workers 1"
    assert_refused(job, f"`ulimit -n` allows {files} open files, and {needs}: raise it")


def assert_refused(job: JobConfig, why: str) -> None:
    for use in (run_job, preview_job):
        with pytest.raises(UsageError, match=why):
            use(job)  # type: ignore[operator]
    assert preview_job(job, sample=0).images == 1


def test_more_files_may_be_open_if_the_shell_lets_a_process_raise_its_limit() -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (512, limits[1]))
        allow_files(30, 0)
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 512
        allow_files(30, 1)
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 515
        allow_files(31, 0)
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 528
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
