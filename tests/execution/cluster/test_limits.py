"""Limits of the shell that are too low for a job."""

import resource
from pathlib import Path

import pytest

from captioner.jobs import JobConfig, run_job
from captioner.jobs.errors import UsageError
from captioner.jobs.execution.cluster.limits import MIN_ADDRESSES
from captioner.jobs.preview import preview_job
from tests.support.photographs import write_photographs


def test_too_few_addresses_are_an_error_that_names_the_limit(
    tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (MIN_ADDRESSES - 1, MIN_ADDRESSES))
    photos = write_photographs(tmp_path / "photos", 1)
    job = JobConfig(photos, tmp_path / "out", checkpoint=tiny_checkpoint, quiet=True)
    for use in (run_job, preview_job):
        with pytest.raises(UsageError, match=r"`ulimit -v` allows 6,291,455 kB .*: raise it"):
            use(job)  # type: ignore[operator]
    assert preview_job(job, sample=0).images == 1
