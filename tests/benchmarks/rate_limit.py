"""Images captioned from a host that limits requests: 90, where 15 are answered in 20 s.

    python tests/benchmarks/rate_limit.py --images 90 --limit 15 --window 20

The host is a thread of this process, and answers 429 with Retry-After beyond its limit. No run can
be faster than the limit allows.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT))

from captioner.jobs import JobConfig, run_job  # noqa: E402
from tests.support.unreliable import UnreliableServer, unreliable_server  # noqa: E402


def main() -> None:
    """Caption the images of the host in one run; print how many, how fast, and what was refused."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=90)
    parser.add_argument("--limit", type=int, default=15, help="requests that are answered")
    parser.add_argument("--window", type=float, default=20.0, help="in so many seconds")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    with unreliable_server() as server, tempfile.TemporaryDirectory() as folder:
        server.limit, server.window, server.latency = options.limit, options.window, 0.05
        start = time.monotonic()
        captioned, code = run(server, Path(folder), options.images, options.workers)
        took = time.monotonic() - start
    least = (-(-options.images // options.limit) - 1) * options.window
    print(f"{captioned} of {options.images} captioned, exit code {code}")
    print(f"{took:.0f} s, {least:.0f} s at least; {server.refused} requests refused")


def run(server: UnreliableServer, folder: Path, images: int, workers: int) -> tuple[int, int]:
    """Return how many images were captioned, and the exit code."""
    source = folder / "list.txt"
    source.write_text("".join(f"{server.url}/ok/{number}.jpg\n" for number in range(images)))
    options = {"workers": workers, "device": "cpu", "quiet": True, "allow_private": True}
    report = run_job(JobConfig(source=source, out=folder / "out", **options))
    return report.captioned, report.exit_code


if __name__ == "__main__":
    main()
