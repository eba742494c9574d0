"""The command line, run as a process."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.support.clusters import PYTHONPATH

GIVE_UP_SECONDS = 600  # what takes a few seconds takes minutes on a busy machine


def command(*arguments: object) -> list[str]:
    """Return the command line of `captioner` with these arguments."""
    return [sys.executable, "-m", "captioner.jobs", *map(str, arguments)]


def environment(**variables: str) -> Mapping[str, str]:
    """Return the environment of a process that harmful images (faults/) harm."""
    return os.environ | {"PYTHONPATH": PYTHONPATH} | variables


def captioner(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command `captioner` to its end."""
    return subprocess.run(
        command(*arguments), env=environment(), cwd=cwd, capture_output=True, text=True, check=False
    )


def start(*arguments: object) -> subprocess.Popen[str]:
    """Start the command `captioner`, in a process group of its own, as a shell at a terminal does.

    Ctrl-C interrupts it even if the tests ignore SIGINT, as the background jobs of a script do.
    """
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return subprocess.Popen(
            command(*arguments),
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
    finally:
        signal.signal(signal.SIGINT, former)
