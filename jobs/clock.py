"""A clock for durations, which no correction of the time of day moves."""

import time

_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def steady_seconds() -> float:
    """Return a time in seconds; if possible, those while the machine is suspended count, too."""
    return time.clock_gettime(_CLOCK)
