"""Caption jobs: `run_job(JobConfig(source=..., out=...))` is what `captioner run` does."""

from typing import TYPE_CHECKING

from captioner.jobs.config.job import JobConfig

if TYPE_CHECKING:
    from captioner.jobs.run import run_job

__all__ = ["JobConfig", "run_job"]


def __getattr__(name: str) -> object:
    """Import `run_job` on first use, because it imports Dask."""
    if name != "run_job":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from captioner.jobs.run import run_job

    return run_job
