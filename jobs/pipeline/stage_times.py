"""The time that each stage of a partition takes."""

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
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


def limiting_step(seconds: Mapping[str, float], took: float) -> str:
    """Return the stage that the others wait for, given seconds by stage and those of the whole.

    Encoding, searching and committing take turns. If they are idle most of the time, they wait for
    images, which several threads fetch and decode at the same time.
    """
    in_turn = ("encode", "search", "commit")
    waits = sum(seconds.get(step, 0.0) for step in in_turn) < took / 2
    steps = ("fetch", "decode") if waits else in_turn
    return max(steps, key=lambda step: seconds.get(step, 0.0))
