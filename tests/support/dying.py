"""A compaction that is killed; apart from the tests, so that its processes start at once."""

import os
import signal
import sys
from pathlib import Path
from typing import Any

from captioner.jobs.table.compaction.compact import compact

STEPS = {"os.rename", "os.remove", "os.rmdir", "os.link", "shutil.rmtree", "open"}


def compact_and_die(out: Path, step: int) -> None:
    """Compact, but die before the given step: a file is opened, renamed or removed."""
    steps = iter(range(step + 1))

    def count(event: str, _arguments: Any) -> None:
        if event in STEPS and next(steps) == step:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)
    compact(out, 33_000, quiet=True)
    os._exit(0)
