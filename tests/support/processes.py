"""The processes of a command, and how much memory they take."""

import subprocess
import threading
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

import psutil

from tests.support.commands import environment


class Sample(NamedTuple):
    """The memory of a process at a time, in seconds and bytes."""

    at: float
    resident: int


def run_sampled(command: Sequence[str], seconds: float) -> Mapping[int, Sequence[Sample]]:
    """Run a command and return the samples of its descendants, by process, every `seconds`."""
    samples: dict[int, list[Sample]] = defaultdict(list)
    ended = threading.Event()
    with subprocess.Popen(command, env=environment()) as process:
        sampler = threading.Thread(target=_sample, args=(process.pid, samples, ended, seconds))
        sampler.start()
        code = process.wait()
        ended.set()
        sampler.join()
    if code:
        raise subprocess.CalledProcessError(code, command)
    return samples


def _sample(
    pid: int, samples: dict[int, list[Sample]], ended: threading.Event, seconds: float
) -> None:
    with suppress(psutil.NoSuchProcess):
        driver = psutil.Process(pid)
        while not ended.wait(seconds):
            for child in driver.children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    now = Sample(time.perf_counter(), child.memory_info().rss)
                    samples[child.pid].append(now)
