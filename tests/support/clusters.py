"""Dask clusters whose workers start at once."""

import multiprocessing
import multiprocessing.forkserver
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

TESTS = Path(__file__).parent.parent


PYTHONPATH = os.pathsep.join([str(TESTS / "faults"), str(TESTS.parent)])


@pytest.fixture(scope="session")
def forkserver() -> None:
    """Start the process that workers are forked from, with torch imported to save them seconds.

    Harmful images (faults/) harm these workers.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", PYTHONPATH)
        multiprocessing.set_forkserver_preload(
            [
                "captioner.lstm.captioner",
                "distributed.nanny",
                "captioner.jobs.table.compaction.compact",
                "captioner.jobs.execution.worker.worker",
            ]
        )
        multiprocessing.forkserver.ensure_running()


@contextmanager
def two_workers(memory_limit: str = "auto", **variables: str) -> Iterator[str]:
    """Yield the address of a Dask cluster whose workers have these environment variables.

    Needs the fixture `forkserver`.
    """
    import dask
    from distributed import LocalCluster

    settings = {
        "distributed.worker.multiprocessing-method": "forkserver",
        "distributed.worker.profile.enabled": False,  # it keeps idle workers busy
        "distributed.deploy.lost-worker-timeout": "1000 days",  # on a busy machine
        "distributed.worker.memory.pause": False,  # with little memory, it would do no task
    }
    with (
        dask.config.set(settings),
        LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            dashboard_address=":0",
            silence_logs=100,
            memory_limit=memory_limit,
            env=variables,
        ) as cluster,
    ):
        yield cluster.scheduler_address


@pytest.fixture(scope="session")
def scheduler(forkserver: None) -> Iterator[str]:
    """Yield the address of a Dask cluster of two workers."""
    with two_workers() as address:
        yield address


@pytest.fixture(scope="module")
def one_worker() -> Iterator[str]:
    """Yield the address of a cluster of one thread in this process; it runs tasks in order.

    Tests can patch what its tasks use.
    """
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=1,
        threads_per_worker=1,
        processes=False,
        dashboard_address=":0",
        protocol="inproc",
    ) as cluster:
        yield cluster.scheduler_address
