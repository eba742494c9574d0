"""The time that each stage of a partition takes."""

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class StageTimes:
    """Seconds by stage, summed over the threads that measure."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._lock = threading.Lock()

    @contextmanager
    def measure(self, stage: str, clock: Callable[[], float] = time.perf_counter) -> Iterator[None]:
        """Add the time that the body takes to a stage, even if it fails."""
        start = clock()
        try:
            yield
        finally:
            took = clock() - start
            with self._lock:
                self.seconds[stage] += took
