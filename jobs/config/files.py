"""Job files: a job from flags and a TOML file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from captioner.jobs.config.checks import check_storage_options
from captioner.jobs.config.job import JobConfig, keys
from captioner.jobs.errors import UsageError
from captioner.jobs.storage.filesystems import StorageOptions
from captioner.jobs.storage.http.access import AccessRules
from captioner.jobs.toml_file import read_toml


def load_config(flags: Mapping[str, Any], job_file: Path | None = None) -> JobConfig:
    """Return the job that a file and flags describe; flags win. UsageError names key and file."""
    values = read_toml(job_file, keys()) if job_file else {}
    values |= flags
    for required, argument in (("source", "SOURCE"), ("out", "--out")):
        if required not in values:
            raise UsageError(f"{argument} is missing: give it, or {required} in a job file")
    try:
        return JobConfig(**values)
    except UsageError as error:
        from_file = job_file and not any(str(error).startswith(f"{key} ") for key in flags)
        raise UsageError(f"{job_file}: {error}") if from_file else error from None


def access_of(job_file: Path) -> tuple[StorageOptions, AccessRules]:
    """Return the storage options and access rules of a job file, whatever else is in it."""
    values = {"source": ".", "out": ".", **read_toml(job_file, keys())}
    options: StorageOptions = values.get("storage_options", {})
    check_storage_options(options)
    wanted = ("source", "out", "only", "allow_host", "allow_private", "storage_options")
    job = JobConfig(**{name: values[name] for name in wanted if name in values})
    return options, job.access_rules
