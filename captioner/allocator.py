"""The C allocator's settings for a process that runs a network."""

import ctypes

_LIBRARY = ctypes.CDLL(None)

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
    mallopt = getattr(_LIBRARY, "mallopt", None)
    if mallopt:
        for parameter, value in (_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX, _M_ARENA_MAX):
            mallopt(parameter, value)


def return_freed_memory() -> None:
    """Return the memory that this process has freed, and kept, to the system; this takes a while.

    Large blocks may not fit into the gaps that others have left. Without glibc, this does nothing.
    """
    malloc_trim = getattr(_LIBRARY, "malloc_trim", None)
    if malloc_trim:
        malloc_trim(0)
