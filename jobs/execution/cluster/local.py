"""A cluster on this machine, which no other user of the machine can reach.

Its processes talk over TLS and trust only the certificate of this run, which exists in their memory
alone: without it, whoever can connect to a port of Dask can run code as the user of the run.
"""

import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import dask
from dask.system import CPU_COUNT
from distributed import Client, Scheduler, SpecCluster
from distributed.system import MEMORY_LIMIT

from captioner.jobs.config.job import JobConfig
from captioner.jobs.errors import TemporaryError
from captioner.jobs.execution.cluster.certificate import own_security
from captioner.jobs.execution.cluster.forks import can_fork
from captioner.jobs.execution.cluster.gpu_processes import gpu_processes, only_gpu
from captioner.jobs.execution.cluster.limits import allow_files, check_addresses
from captioner.jobs.execution.cluster.nannies import (
    HastyNanny,
    ended_when_interrupted,
    until_complete,
)
from captioner.jobs.execution.worker.run_state import GPU_PROCESS
from captioner.jobs.pipeline.loading import FEW_READERS, MIN_READERS, READERS
from captioner.jobs.storage.temporary import TemporaryFolder
from captioner.options import HF
from captioner.precision import expected_device, gpu_count

IMAGES_PER_WORKER = 20  # for fewer, another process is not worth its start
IMAGES_PER_DECODING_WORKER = 200  # beside a GPU process, it captions as many in the same time
CORES_PER_LARGE_MODEL = 4
HOST = "127.0.0.1"
WORKERS_MEMORY = 0.8  # of the machine's or the container's; the rest is for the driver and others
MIN_MEMORY = 2**31  # of a worker: the model, and a few large images

# The driver tells dead workers from slow ones (driver.py), so the scheduler must not retry a task
# elsewhere. Workers hold no data, so there is nothing to spill, and a paused worker would only
# stall. A worker that exceeds its memory is ended by its watchdog, which says why; a nanny would
# not, and counts the pages of a model's file that all workers share. A worker may be silent for
# long, while an image keeps Python's lock; when it dies, its connection ends. By default, Dask
# gives up a worker that is not back 15 s after it died, though it may only have died again.
_DASK = {
    "distributed.scheduler.allowed-failures": 0,
    "distributed.deploy.lost-worker-timeout": "1000 days",
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": False,
    "distributed.scheduler.worker-ttl": None,
    "distributed.worker.profile.enabled": False,
    # By default, each worker wakes up 50 times a second: 2% of a core for nothing.
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.system-monitor.interval": "10s",
    # Dask's HTTP servers need no certificate: they have no page.
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
}


@contextmanager
def local_workers(config: JobConfig, images: int) -> Iterator[Client]:
    """Yield a client of a cluster that ends with the context and leaves no files.

    Few `images` need few workers. Raise TemporaryError if they cannot start, UsageError if a limit
    of the shell is too low for a model or for them.
    """
    if not config.captioner.asks_server:
        check_addresses()
    method = {"distributed.worker.multiprocessing-method": "forkserver"} if can_fork() else {}
    with (
        TemporaryFolder() as folder,
        dask.config.set(_DASK | method | {"temporary-directory": folder}),
        _local_cluster(config, images, folder) as cluster,
        Client(cluster) as client,
    ):
        yield client


@contextmanager
def _local_cluster(config: JobConfig, images: int, folder: str) -> Iterator[SpecCluster]:
    gpus = _gpus_of(config)
    shares_gpus = gpus > 0 and not config.captioner.kind
    each = IMAGES_PER_DECODING_WORKER if shares_gpus else IMAGES_PER_WORKER
    workers = config.workers or min(_most_workers(config, gpus), -(-images // each))
    count = min(gpus, workers) if shares_gpus else 0
    allow_files(workers, count)
    over = threading.Event()
    reach = {"host": HOST, "protocol": "tls://", "security": own_security()}
    options = {**reach, "dashboard": False, "dashboard_address": f"{HOST}:0"}
    with ExitStack() as stack:
        with until_complete(over), _naming_the_cause():
            processes = stack.enter_context(gpu_processes(config, count, Path(folder)))
            environments = [_environment(n, workers, gpus, processes) for n in range(workers)]
            nanny = {
                **reach,
                "over": over,
                "nthreads": 1,
                "local_directory": folder,
                "memory_limit": memory_share(workers + len(processes)),
                "silence_logs": logging.CRITICAL,
            }
            cluster = SpecCluster(
                workers=_specs(nanny, environments, folder),
                scheduler={"cls": Scheduler, "options": options},
                security=reach["security"],
                silence_logs=logging.CRITICAL,
            )
            stack.enter_context(cluster)
            stack.enter_context(ended_when_interrupted(cluster, over))
        yield cluster


def _gpus_of(config: JobConfig) -> int:
    """Return how many GPUs the workers of a job have."""
    return gpu_count() if expected_device(config.device) == "cuda" else 0


def _specs(
    nanny: Mapping[str, Any], environments: Sequence[Mapping[str, str]], folder: str
) -> dict[int, dict[str, Any]]:
    """Return what Dask starts workers by: one for each environment."""
    own = {"TMPDIR": folder}  # which a worker that is killed cannot empty
    return {
        number: {"cls": HastyNanny, "options": {**nanny, "env": {**own, **environment}}}
        for number, environment in enumerate(environments)
    }


def memory_share(workers: int) -> int:
    """Return the bytes of memory that each worker may take."""
    return min(max(int(WORKERS_MEMORY * MEMORY_LIMIT / workers), MIN_MEMORY), MEMORY_LIMIT)


@contextmanager
def _naming_the_cause() -> Iterator[None]:
    """Raise TemporaryError for the error with which Dask says that workers do not start."""
    try:
        yield
    except (RuntimeError, OSError, TimeoutError) as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        why = str(cause) or type(cause).__name__
        raise TemporaryError(
            f"the workers die while they start ({why}); if they said why, it is above this line"
        ) from error


def _most_workers(config: JobConfig, gpus: int) -> int:
    """Return how many workers are worth their start: as a rule, one for each core.

    There are as many beside GPU processes, which take a core each: at the end of a partition, a
    worker waits. A model of transformers has hundreds of megabytes or more, which each worker would
    load, and its matrices are large enough to keep a GPU or several cores busy. One worker alone
    keeps a server busy.
    """
    if config.captioner.asks_server:
        return 1
    if config.captioner.kind == HF:
        return gpus or max(1, CPU_COUNT // CORES_PER_LARGE_MODEL)
    return max(CPU_COUNT, gpus)


def _environment(number: int, workers: int, gpus: int, processes: Sequence[Path]) -> dict[str, str]:
    """Return the variables that give a worker its share of the cores, its GPU and its process.

    Beside a GPU, tensors on the CPU are small: a team of threads would wait for the threads that
    decode, which need the cores.
    """
    cores = max(1, CPU_COUNT // workers)
    team = "1" if gpus else str(cores)
    readers = str(max(FEW_READERS if processes else MIN_READERS, cores))
    environment = {"OMP_NUM_THREADS": team, "MKL_NUM_THREADS": team, READERS: readers}
    if gpus:
        environment |= only_gpu(number % gpus)
    if processes:
        environment[GPU_PROCESS] = str(processes[number % gpus])
    return environment
