"""The workers of a job: those of this machine by default, or those of a running scheduler."""

from collections.abc import Iterator
from contextlib import contextmanager

from captioner.jobs.config.job import JobConfig
from captioner.jobs.execution.cluster.fitness import wanted
from captioner.jobs.execution.cluster.local import local_workers
from captioner.jobs.execution.cluster.scheduler import connect_scheduler, silent_dask, tell_about
from captioner.jobs.execution.cluster.workers import Tell, Workers
from captioner.options import CaptionerOptions

PATIENCE = {"local": 60.0, "scheduler": 600.0}  # seconds without a worker


@contextmanager
def connect(
    config: JobConfig, captioner: CaptionerOptions, images: int, tell: Tell
) -> Iterator[Workers]:
    """Yield the workers of a job and its captioner once one may have tasks.

    Few `images` need few workers of this machine. Raise TemporaryError if no worker may have tasks.
    """
    patience = config.wait_for_workers
    if patience is None:
        patience = PATIENCE["scheduler" if config.scheduler else "local"]
    must_be = wanted(captioner) if config.scheduler else None
    with (
        silent_dask(),
        connect_scheduler(config.scheduler)
        if config.scheduler
        else local_workers(config, images) as client,
    ):
        if config.scheduler and not config.quiet:
            tell_about(client)
        workers = Workers(client, patience, tell, must_be)
        workers.wait()
        yield workers
