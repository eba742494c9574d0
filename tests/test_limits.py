"""Limits of the shell that are too low for a job."""

import resource
from pathlib import Path

import pytest

from captioner.jobs import JobConfig, run_job
from captioner.jobs.errors import UsageError
from captioner.jobs.limits import MIN_ADDRESSES
from captioner.jobs.preview import preview_job


def test_too_few_addresses_are_an_error_that_names_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (MIN_ADDRESSES - 1, MIN_ADDRESSES))
    job = JobConfig(tmp_path, tmp_path / "out")
    for use in (run_job, preview_job):
        with pytest.raises(UsageError, match=r"`ulimit -v` allows 4,194,303 kB .*: raise it"):
            use(job)  # type: ignore[operator]
    assert not (tmp_path / "out").exists()
