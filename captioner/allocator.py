"""The C allocator's settings for a process that runs a network."""

import ctypes

# malloc.h of glibc: parameter, value in bytes or a number
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = (-1, 2**31 - 1), (-2, 2**26), (-4, 0)
_M_ARENA_MAX = (-8, 1)


def keep_freed_memory() -> None:
    """Make this process keep the memory it frees for the next batch; call it once, early.

    glibc returns large buffers to the system whenever they are freed. A network that allocates them
    again for every batch then spends much of its time on a CPU in page faults. Threads share what
    was freed: with an arena for each, as is usual, every thread that once decoded a large picture
    would keep that much memory for the next. Without glibc, this does nothing.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:
        for parameter, value in (_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX, _M_ARENA_MAX):
            mallopt(parameter, value)
