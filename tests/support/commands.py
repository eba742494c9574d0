"""The command line, run as a process."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.support.clusters import PYTHONPATH


def command(*arguments: object) -> list[str]:
    """The command line of `captioner` with these arguments."""
    return [sys.executable, "-m", "captioner.jobs", *map(str, arguments)]


def environment(**variables: str) -> Mapping[str, str]:
    """Of a subprocess: harmful images harm it."""
    return os.environ | {"PYTHONPATH": PYTHONPATH} | variables


def captioner(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command `captioner` to its end."""
    return subprocess.run(
        command(*arguments), env=environment(), cwd=cwd, capture_output=True, text=True, check=False
    )
