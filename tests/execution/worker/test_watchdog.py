"""The watchdog of a worker, without a cluster."""

import json
import os
import signal
import subprocess
import sys
import time
from array import array
from pathlib import Path
from types import SimpleNamespace

import pytest

from captioner.jobs.execution.worker import watchdog
from captioner.jobs.execution.worker.watchdog import Watchdog
from tests.support.commands import environment

HANG = """
import ctypes
from captioner.jobs.execution.worker.watch import Limits, watching_images

with watching_images(range(5), Limits(0.2)) as watch, watch(3):
    ctypes.PyDLL(None).sleep(1000)
"""
DIE = """
import ctypes, os, signal, sys, threading
from captioner.jobs.execution.worker.watch import Limits, watching_images

with watching_images(range(5), Limits(600), dict(storage_options={}, **{report})) as watch:
    with watch(3):
        threading.Thread(target=lambda: {death}).start()
        signal.pause()
"""
LIGHT = f"""
import runpy, sys
runpy.run_path({str(watchdog.__file__)!r})
print(*sys.modules.keys() & {{"captioner", "numpy", "pyarrow", "torch", "dask", "fsspec"}})
"""


@pytest.fixture
def table() -> memoryview:
    """Return the table of a worker that has image 3 open, as its first image."""
    table = memoryview(bytearray(watchdog.TABLE_BYTES)).cast("q")
    table[:2] = memoryview(array("q", [4711, watchdog.ROWS + 3]))
    return table


@pytest.fixture
def dog(table: memoryview, monkeypatch: pytest.MonkeyPatch) -> Watchdog:
    """Return a watchdog of that worker, whose images must take at most a second."""
    monkeypatch.setattr(watchdog, "is_stopped", lambda process: False)
    dog = Watchdog(os.getpid(), table)
    dog._take(json.dumps({"limits": {"seconds": 1.0, "memory": None}, "report": None}))
    dog._look()
    return dog


def wait(dog: Watchdog, monkeypatch: pytest.MonkeyPatch, *seconds: float) -> None:
    for each in seconds:
        clock = SimpleNamespace(monotonic=lambda then=dog.looked + each: then)
        monkeypatch.setattr(watchdog, "time", clock)
        dog._advance()


def test_an_image_is_late_by_the_time_that_its_worker_had(
    dog: Watchdog, table: memoryview, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait(dog, monkeypatch, 3600)  # the machine slept
    assert dog._excess() is None
    monkeypatch.setattr(watchdog, "is_stopped", lambda process: True)
    wait(dog, monkeypatch, *[0.1] * 20)  # the worker was stopped
    assert dog._excess() is None
    monkeypatch.setattr(watchdog, "is_stopped", lambda process: False)
    wait(dog, monkeypatch, *[0.1] * 10)
    assert dog._excess() == "timeout"
    assert dog._busy() == {3}
    table[1] = 0
    dog._look()
    assert dog._excess() is None


def test_an_image_that_is_opened_again_has_all_its_time_again(
    dog: Watchdog, table: memoryview, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait(dog, monkeypatch, *[0.1] * 20)
    dog._look()
    assert dog._excess() == "timeout"
    table[1] = 2 * watchdog.ROWS + 3
    dog._look()
    assert dog._excess() is None


def test_memory_counts_if_there_is_a_limit(dog: Watchdog) -> None:
    assert dog._excess() is None
    dog._take(json.dumps({"limits": {"seconds": 1.0, "memory": 1000}, "report": None}))
    assert dog._excess() == "memory"


@pytest.mark.parametrize("before", ["", "import os; del os.memfd_create"])  # not everywhere
def test_a_process_that_keeps_the_lock_of_python_is_ended(before: str) -> None:
    line = [sys.executable, "-c", before + HANG]
    hanging = subprocess.run(line, env=environment(), check=False)
    assert hanging.returncode == -signal.SIGKILL


@pytest.mark.parametrize(
    ("death", "kind"),
    [
        ("ctypes.string_at(0)", "crashed"),
        ("os.abort()", "crashed"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "killed"),
        ("os._exit(3)", "killed"),
    ],
)
def test_a_process_that_crashes_is_told_from_one_that_is_killed(
    tmp_path: Path, death: str, kind: str
) -> None:
    report = {name: str(tmp_path / name) for name in ("death", "marker")}
    Path(report["marker"]).touch()
    code = DIE.replace("{report}", str(report)).replace("{death}", death)
    assert subprocess.run([sys.executable, "-c", code], env=environment(), check=False).returncode
    while not Path(report["death"]).exists():
        time.sleep(0.01)
    found = json.loads(Path(report["death"]).read_text())
    assert (found["kind"], found["suspects"]) == (kind, [3])


def test_a_watchdog_imports_no_package() -> None:
    line = [sys.executable, "-S", "-c", LIGHT]
    assert subprocess.run(line, capture_output=True, text=True, check=True).stdout == "\n"
