"""Exit code, messages, peak memory and time of `captioner plan`, measured in processes of its own.

    python -m tests.support.measured SOURCE...

prints a line of JSON for each SOURCE. The processes are forks of one that has imported little, so
that the peak is of the plan.
"""

import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

LIMIT_SECONDS = 300
LIMIT_BYTES = 8 * 2**30  # of address space, so that a bomb ends only itself
_KIB_PER_MIB = 1024


@dataclass(frozen=True)
class Measured:
    """What planning a source came to; `code` is negative after a signal, and `peak` in MiB."""

    source: str
    code: int
    message: str
    peak: float
    seconds: float


def measure(sources: Sequence[str]) -> Iterator[Measured]:
    """Yield what planning each source comes to."""
    command = [sys.executable, "-m", "tests.support.measured", *sources]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        for line in process.stdout:
            yield Measured(**json.loads(line))


def _measured(source: str) -> Measured:
    with tempfile.TemporaryDirectory() as folder:
        messages, start = Path(folder, "messages"), time.perf_counter()
        child = os.fork()
        if not child:
            os._exit(_plan(source, Path(folder), messages))
        _, status, usage = os.wait4(child, 0)
        seconds = time.perf_counter() - start
        text = messages.read_text(errors="replace").strip()
    code = os.waitstatus_to_exitcode(status)
    return Measured(source, code, text, usage.ru_maxrss / _KIB_PER_MIB, seconds)


def _plan(source: str, folder: Path, messages: Path) -> int:
    from captioner.jobs.cli.main import main

    signal.alarm(LIMIT_SECONDS)
    resource.setrlimit(resource.RLIMIT_AS, (LIMIT_BYTES, LIMIT_BYTES))
    file = os.open(messages, os.O_WRONLY | os.O_CREAT)
    os.dup2(file, 1)
    os.dup2(file, 2)
    out = str(folder / "out")
    try:
        return main(["plan", source, "--sample", "0", "--out", out])
    except SystemExit as stop:
        return int(stop.code or 0)
    except BaseException:  # noqa: BLE001 (the end of the process)
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


if __name__ == "__main__":
    import captioner.jobs.planning.listing  # noqa: F401 (once, not in each process)

    for each in sys.argv[1:]:
        print(json.dumps(asdict(_measured(each))), flush=True)
