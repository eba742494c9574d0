"""Limits of the shell with which libraries fail in ways that name no reason."""

import resource

from captioner.jobs.errors import UsageError

MIN_ADDRESSES = 6 * 2**30  # bytes of a process: libraries, and the stacks of its threads
# That the driver has open: by itself, and for each process.
FILES, FILES_OF_A_WORKER, FILES_OF_A_GPU_PROCESS = 32, 16, 3


def check_addresses() -> None:
    """Raise UsageError if a process may not use the addresses that a worker with a model needs."""
    allowed, _ = resource.getrlimit(resource.RLIMIT_AS)
    if _is_less(allowed, MIN_ADDRESSES):
        raise UsageError(
            f"`ulimit -v` allows {allowed // 1024:,} kB of addresses, and each worker needs more "
            f"than {MIN_ADDRESSES // 1024:,}: raise it; workers have limits of their own memory"
        )


def allow_files(workers: int, gpu_processes: int) -> None:
    """Let the driver open the files that it needs for processes; UsageError if it may not."""
    needed = FILES + FILES_OF_A_WORKER * workers + FILES_OF_A_GPU_PROCESS * gpu_processes
    allowed, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if not _is_less(allowed, needed):
        return
    if _is_less(most, needed):
        raise UsageError(
            f"`ulimit -n` allows {most} open files, and a run needs {needed} with --workers "
            f"{workers}: raise it"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, most))


def _is_less(limit: int, needed: int) -> bool:
    return limit != resource.RLIM_INFINITY and limit < needed
