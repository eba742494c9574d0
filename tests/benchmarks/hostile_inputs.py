"""What `captioner plan` makes of damaged, odd and hostile manifests, Parquet files and archives.

Prints exit code, peak memory, time and message for each. Fails if one of them ends otherwise than
with 0 or 2 and one message, or takes more memory than --limit.

    python tests/benchmarks/hostile_inputs.py [--only bomb] [--limit 1024]
"""

import argparse
import re
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent.parent))
from tests.support.hostile_inputs import HOSTILE, write_hostile
from tests.support.measured import Measured, measure

PROGRESS = re.compile(r"captioner: [a-z ]+, [\d,]+ images found")  # after some seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", nargs="+", default=[""], help="parts of the names")
    parser.add_argument("--limit", type=float, default=1024, help="MiB of peak memory")
    options = parser.parse_args()
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        for name in (name for name in HOSTILE if any(part in name for part in options.only)):
            (measured,) = measure([written(Path(folder), name)])
            problem = wrong_in(measured, options.limit)
            wrong += problem is not None
            message = measured.message.replace(folder, "").replace("\n", " | ")
            print(f"{name:28} {measured.code:3} {measured.peak:6.0f} MiB {measured.seconds:6.1f} s")
            print(f"    {f'WRONG ({problem}): ' if problem else ''}{message[-400:]}", flush=True)
            (Path(folder) / name).unlink()
    sys.exit(f"{wrong} of them wrong" if wrong else 0)


def written(folder: Path, name: str) -> str:
    """Write a file in a process of its own, whose memory it may fill, and return it as SOURCE."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(write_hostile, folder, name).result()


def wrong_in(measured: Measured, limit: float) -> str | None:
    if measured.code not in (0, 2):
        return f"exit code {measured.code}"
    if "Traceback" in measured.message:
        return "a traceback"
    messages = [line for line in measured.message.splitlines() if not PROGRESS.match(line)]
    if measured.code and len(messages) > 1:
        return "several messages"
    return "too much memory" if measured.peak > limit else None


if __name__ == "__main__":
    main()
