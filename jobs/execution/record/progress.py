"""The progress of a run on stderr: a bar on a terminal, otherwise a line a minute."""

import signal
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

from tqdm import tqdm

from captioner.jobs.execution.record.at_work import Straggler
from captioner.jobs.messages import beside_a_bar, is_json, printable, say
from captioner.schemas.job_report import limiting_step

WINDOW = 60.0  # seconds of which the speed is the mean
BAR_SECONDS, FIRST_LINE_SECONDS, LINE_SECONDS = 0.5, 5.0, 60.0
Facts = Mapping[str, Any]
Show = Callable[[Facts], None]
BAR = "{percentage:3.0f}%|{bar:20}| {desc}"
LISTING, PLANNING, STARTING, FINISHING = "listing", "planning", "starting", "finishing"
TIMING = "timing some images"  # in `captioner plan`
ENDED = "ended"


@dataclass(frozen=True)
class Moment:
    """The counts of a run at a time `at`, in seconds.

    `images` are those done, of a `total` that is 0 until it is known; `listed` ones were found in
    the source so far. `seconds` by stage, and the time that tasks `took`, are of committed
    partitions. Before the first worker has `begun`, all are zero; until then, and after the last
    image, the `phase` says what the run does. `waiting` are tasks that have done nothing for long.
    """

    at: float
    begun: bool = False
    images: int = 0
    failed: int = 0
    seconds: Mapping[str, float] = field(default_factory=dict)
    took: float = 0.0
    total: int = 0
    listed: int = 0
    phase: str = STARTING
    waiting: Sequence[Straggler] = ()


class Pace:
    """The speed of a run in the last minute."""

    def __init__(self) -> None:
        self._moments: deque[Moment] = deque()

    def facts(self, now: Moment) -> Facts:
        """Return what can be said of this moment, and since those before it."""
        if not now.total:
            return {"phase": now.phase, "listed": now.listed}
        facts: dict[str, Any] = {"images": now.images, "total": now.total}
        if not now.begun or now.phase == FINISHING:
            facts["phase"] = now.phase
        if now.begun:
            facts |= self._speed(now)
        if now.waiting:
            facts["waiting"] = [asdict(each) for each in now.waiting]
        return facts

    def _speed(self, now: Moment) -> Facts:
        before = self._minute_before(now)
        facts: dict[str, Any] = {}
        if (rate := (now.images - before.images) / max(now.at - before.at, 1e-9)) > 0:
            facts["images_per_second"] = round(rate, 2)
            if now.images < now.total:
                facts["seconds_left"] = round((now.total - now.images) / rate)
        if now.failed:
            facts["failed"] = now.failed
        if (took := now.took - before.took) > 0:
            seconds = Counter(now.seconds)
            seconds.subtract(before.seconds)
            if limit := limiting_step(seconds, took):
                facts["limit"] = limit
        return facts

    def _minute_before(self, now: Moment) -> Moment:
        """Return the oldest moment of the last minute, or `now` if there is none."""
        self._moments.append(now)
        while now.at - self._moments[0].at > WINDOW:
            self._moments.popleft()
        return self._moments[0]


def text_of(facts: Facts) -> str:
    """Format the progress of a run."""
    if "total" not in facts:
        so_far = " so far" if facts["phase"] == LISTING else ""
        return f"{facts['phase']}, {facts['listed']:,} images found{so_far}"
    formats = {
        "phase": "{}",
        "images_per_second": "{:,.1f} images/s",
        "seconds_left": "{} left",
        "failed": "{:,} failed",
        "limit": "limit: {}",
    }
    values = dict(facts)
    if "seconds_left" in facts:
        values["seconds_left"] = tqdm.format_interval(facts["seconds_left"])
    said = [text.format(values[name]) for name, text in formats.items() if name in values]
    said += [_waiting(facts["waiting"])] if "waiting" in facts else []
    return ", ".join([f"{facts['images']:,} of {facts['total']:,} images", *said])


def _waiting(stragglers: Sequence[Facts]) -> str:
    """Format what the run waits for."""
    first, *others = stragglers
    since, part = tqdm.format_interval(first["seconds"]), f"part {first['part']}"
    what = f"{printable(first['image'])} ({part})" if first["image"] else part
    more = f" and {len(others)} more" if others else ""
    return f"waiting {since} for {what}{more}"


@contextmanager
def showing(count: Callable[[], Moment], *, quiet: bool) -> Iterator[None]:
    """Show the progress that `count` returns, while the context lasts, from another thread."""
    if quiet:
        yield
        return
    pace = Pace()
    has_bar = sys.stderr.isatty() and not is_json()
    with (
        _bar() if has_bar else _lines() as show,
        every(BAR_SECONDS, lambda: show(pace.facts(count()))),
    ):
        yield


@contextmanager
def every(seconds: float, function: Callable[[], None]) -> Iterator[None]:
    """Call a function now and then, from another thread, and in the end once more."""
    ended = threading.Event()

    def run() -> None:
        # While the driver blocks Ctrl-C (cluster.py), no other thread may accept it.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        while not ended.wait(seconds):
            function()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        function()


@contextmanager
def _bar() -> Iterator[Show]:
    """Provide a bar, which appears when it is known how much there is to do."""
    with ExitStack() as stack:
        bar: tqdm[Any] | None = None

        def show(facts: Facts) -> None:
            nonlocal bar
            if "total" not in facts:
                return
            if bar is None:
                stack.enter_context(beside_a_bar())
                bar = tqdm(total=facts["total"], desc="", bar_format=BAR)
                stack.enter_context(bar)
            bar.n = facts["images"]
            bar.set_description_str(text_of(facts))

        yield show


@contextmanager
def _lines() -> Iterator[Show]:
    """Provide what writes a line soon, and then one a minute."""
    next_line = time.monotonic() + FIRST_LINE_SECONDS

    def show(facts: Facts) -> None:
        nonlocal next_line
        if time.monotonic() >= next_line:
            next_line = time.monotonic() + LINE_SECONDS
            say(text_of(facts), "progress", facts)

    yield show
