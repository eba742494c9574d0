"""Limits of the shell with which libraries fail in ways that name no reason."""

import resource

from captioner.jobs.errors import UsageError

MIN_ADDRESSES = 6 * 2**30  # bytes of a process: libraries, and the stacks of its threads


def check_limits() -> None:
    """Raise UsageError if a process may not use the addresses that a worker with a model needs."""
    allowed, _ = resource.getrlimit(resource.RLIMIT_AS)
    if allowed != resource.RLIM_INFINITY and allowed < MIN_ADDRESSES:
        raise UsageError(
            f"`ulimit -v` allows {allowed // 1024:,} kB of addresses, and each worker needs more "
            f"than {MIN_ADDRESSES // 1024:,}: raise it; workers have limits of their own memory"
        )
