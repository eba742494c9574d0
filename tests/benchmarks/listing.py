"""Objects listed per second on an S3 server (moto, in its own process): ours and s3fs `find`.

    python tests/benchmarks/listing.py --objects 100000

The server shares this machine, so the figures show the overhead of each, not the speed of S3.
"""

import argparse
import asyncio
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import s3fs

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT))

from captioner.jobs.sources.open_source import open_source  # noqa: E402
from captioner.jobs.storage.filesystems import configure  # noqa: E402
from tests.support.servers import CREDENTIALS, S3Server, moto_server  # noqa: E402

AT_ONCE = 32  # objects uploaded at the same time


def main() -> None:
    """Fill a bucket, list it both ways, and print objects/s and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--objects", type=int, default=100_000)
    parser.add_argument("--prefixes", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=2, help="the best of them counts")
    options = parser.parse_args()
    os.environ.update(CREDENTIALS)
    with moto_server() as server:
        bucket = fill(server, options.objects, options.prefixes)
        ours = best(options.rounds, lambda: list_by_us(server, bucket), options.objects)
        find = best(options.rounds, lambda: list_by_find(server, bucket), options.objects)
    print(f"{options.objects} objects in {options.prefixes} prefixes, objects/s:")
    print(f"ours {ours:.0f}, s3fs find {find:.0f}, ratio {ours / find:.2f}")


def fill(server: S3Server, objects: int, prefixes: int) -> str:
    """Create a bucket with objects of three bytes; return its URL."""
    bucket = server.bucket({})
    fs = s3fs.S3FileSystem(endpoint_url=server.endpoint, asynchronous=True)
    names = iter([f"{n % prefixes:03d}/{n:08d}.jpg" for n in range(objects)])

    async def put() -> None:
        for name in names:
            await fs._call_s3("put_object", Bucket=bucket[5:], Key=name, Body=b"jpg")

    async def put_all() -> None:
        session = await fs.set_session()
        await asyncio.gather(*(put() for _ in range(AT_ONCE)))
        await session.close()

    asyncio.run(put_all())
    return bucket


def list_by_us(server: S3Server, bucket: str) -> int:
    configure(server.options)
    return sum(batch.num_rows for batch in open_source(bucket).batches)


def list_by_find(server: S3Server, bucket: str) -> int:
    fs = s3fs.S3FileSystem(endpoint_url=server.endpoint, skip_instance_cache=True)
    return len(fs.find(bucket, detail=True))


def best(rounds: int, listing: Callable[[], int], objects: int) -> float:
    """Return the objects/s of the fastest round."""
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        assert listing() == objects
        seconds.append(time.perf_counter() - start)
    return objects / min(seconds)


if __name__ == "__main__":
    main()
