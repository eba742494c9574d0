"""The progress of a run on stderr: a bar on a terminal, otherwise a line a minute."""

import signal
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from tqdm import tqdm

from captioner.schemas.job_report import limiting_step

WINDOW = 60.0  # seconds of which the speed is the mean
BAR_SECONDS, LINE_SECONDS = 0.5, 60.0
Show = Callable[[int, str], None]  # the images done, and a text
BAR = "{percentage:3.0f}%|{bar:20}| {desc}"


@dataclass(frozen=True)
class Moment:
    """The counts of a run at a time `at`, in seconds.

    `images` are those done; `seconds` by stage, and the time that tasks `took`, are of committed
    partitions. Before the first worker has `begun`, all are zero.
    """

    at: float
    begun: bool = False
    images: int = 0
    failed: int = 0
    seconds: Mapping[str, float] = field(default_factory=dict)
    took: float = 0.0


class Pace:
    """The speed of a run in the last minute."""

    def __init__(self, total: int) -> None:
        self.total = total
        self._moments: deque[Moment] = deque()

    def text(self, now: Moment) -> str:
        """Return the counts of this moment, with what can be said since those before it."""
        if not now.begun:
            return f"{now.images:,} of {self.total:,} images, starting"
        before = self._minute_before(now)
        facts = [f"{now.images:,} of {self.total:,} images"]
        if (rate := (now.images - before.images) / max(now.at - before.at, 1e-9)) > 0:
            facts.append(f"{rate:,.1f} images/s")
            if now.images < self.total:
                facts.append(f"{tqdm.format_interval((self.total - now.images) / rate)} left")
        if now.failed:
            facts.append(f"{now.failed:,} failed")
        if (took := now.took - before.took) > 0:
            seconds = Counter(now.seconds)
            seconds.subtract(before.seconds)
            facts.append(f"limit: {limiting_step(seconds, took)}")
        return ", ".join(facts)

    def _minute_before(self, now: Moment) -> Moment:
        """Return the oldest moment of the last minute, or `now` if there is none."""
        self._moments.append(now)
        while now.at - self._moments[0].at > WINDOW:
            self._moments.popleft()
        return self._moments[0]


@contextmanager
def showing(count: Callable[[], Moment], total: int, quiet: bool) -> Iterator[None]:
    """Show the progress that `count` returns, while the context lasts, from another thread."""
    if quiet:
        yield
        return
    ended, pace = threading.Event(), Pace(total)
    with _bar(total) if sys.stderr.isatty() else _lines() as show:

        def run() -> None:
            # While the driver blocks Ctrl-C (cluster.py), no other thread may accept it.
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            while not ended.wait(BAR_SECONDS):
                now = count()
                show(now.images, pace.text(now))

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            now = count()
            show(now.images, pace.text(now))


@contextmanager
def _bar(total: int) -> Iterator[Show]:
    with tqdm(total=total, desc="", bar_format=BAR) as bar:

        def show(images: int, text: str) -> None:
            bar.n = images
            bar.set_description_str(text)

        yield show


@contextmanager
def _lines() -> Iterator[Show]:
    last = time.monotonic()

    def show(images: int, text: str) -> None:
        nonlocal last
        if time.monotonic() - last >= LINE_SECONDS:
            last = time.monotonic()
            print(f"captioner: {text}", file=sys.stderr, flush=True)

    yield show
