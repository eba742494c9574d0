"""Caption jobs: `run_job(JobConfig(source=..., out=...))` is what `captioner run` does."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from captioner.jobs.config.job import JobConfig
    from captioner.jobs.run import run_job

__all__ = ["JobConfig", "run_job"]


def __getattr__(name: str) -> Any:
    """Import what is used, when it is used, so that `captioner --help` starts fast."""
    if name == "JobConfig":
        from captioner.jobs.config.job import JobConfig

        return JobConfig
    if name == "run_job":
        from captioner.jobs.run import run_job

        return run_job
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
