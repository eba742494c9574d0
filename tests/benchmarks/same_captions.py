"""The same photographs through every kind of source: are the captions the same?

    python tests/benchmarks/same_captions.py PHOTOGRAPHS [--images 200]

PHOTOGRAPHS is a folder of image files. They are read from local files, from an S3 server and an
HTTP server in processes of their own, from archives and from Parquet files. Prints a line for each
source: images, captions that differ from those of the folder, and images per second. Exits with 1
if any caption differs.
"""

import argparse
import gzip
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import s3fs
import webdataset
from distributed import LocalCluster

sys.path.insert(0, str(Path(__file__).parent.parent.parent))
from captioner.jobs import JobConfig, run_job
from tests.support.inventories import version, write_inventory
from tests.support.servers import CREDENTIALS, S3Server, moto_server
from tests.support.tables import read_table


def main() -> int:
    """Caption the photographs from each source, and compare the captions."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("photographs", type=Path)
    parser.add_argument("--images", type=int, default=200)
    options = parser.parse_args()
    os.environ |= CREDENTIALS
    with (
        tempfile.TemporaryDirectory() as name,
        moto_server() as s3,
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
    ):
        folder = Path(name)
        photos = folder / "photos"
        photos.mkdir()
        for path in sorted(options.photographs.iterdir())[: options.images]:
            shutil.copy(path, photos)
        with http_server(folder) as http:
            sources = {**local_sources(folder, photos), **remote_sources(folder, photos, s3, http)}
            return compare(sources, folder, s3, cluster.scheduler_address)


def compare(sources: dict[str, str], folder: Path, s3: S3Server, scheduler: str) -> int:
    """Print for each source how many captions differ from those of the first."""
    expected: list[str] = []
    differ = 0
    print(f"{'source':<24} {'images':>6} {'differ':>6} {'images/s':>8}", flush=True)
    for number, (kind, source) in enumerate(sources.items()):
        out = folder / f"out {number}"
        start = time.perf_counter()
        run_job(
            JobConfig(
                source, out, scheduler=scheduler, storage_options=s3.options, quiet=True,
                send_secrets=True, partition_size=100,
            )
        )  # fmt: skip
        took = time.perf_counter() - start
        captions = in_order_of_content(out)
        expected = expected or captions
        wrong = sum(a != b for a, b in zip(captions, expected, strict=True))
        differ += wrong
        print(f"{kind:<24} {len(captions):>6} {wrong:>6} {len(captions) / took:>8.1f}", flush=True)
    return 1 if differ else 0


def in_order_of_content(out: Path) -> list[str]:
    table = read_table(out).sort_by("image_sha256")
    return [f"{row['caption']} {row['confidence']:.4f}" for row in table.to_pylist()]


def local_sources(folder: Path, photos: Path) -> dict[str, str]:
    """Write manifests and containers of the photographs; return all local sources."""
    paths = sorted(photos.iterdir())
    frame = pd.DataFrame({"image_uri": [f"photos/{path.name}" for path in paths]})
    frame.to_csv(folder / "list.csv", index=False)
    frame.to_csv(folder / "list.csv.gz", index=False)
    frame.to_json(folder / "list.jsonl", orient="records", lines=True)
    with gzip.open(folder / "list.jsonl.gz", "wt") as file:
        file.write((folder / "list.jsonl").read_text())
    frame.to_parquet(folder / "list.parquet")
    (folder / "list.txt").write_text("\n".join(frame["image_uri"]) + "\n")
    with webdataset.TarWriter(str(folder / "shard.tar")) as tar:
        for path in paths:
            tar.write({"__key__": path.stem, "jpg": path.read_bytes(), "json": {"id": path.stem}})
    with tarfile.open(folder / "shard.tar.gz", "w:gz") as tar:
        for path in paths:
            tar.add(path, path.name)
    with zipfile.ZipFile(folder / "photos.zip", "w") as archive:
        for path in paths:
            archive.write(path, path.name)
    files = [{"bytes": path.read_bytes(), "path": path.name} for path in paths]
    pq.write_table(pa.table({"image": files}), folder / "struct.parquet", row_group_size=64)
    content = [file["bytes"] for file in files]
    pq.write_table(pa.table({"image": content}), folder / "binary.parquet", row_group_size=64)
    names = ("list.csv", "list.csv.gz", "list.jsonl", "list.jsonl.gz", "list.parquet", "list.txt")
    containers = ("shard.tar", "shard.tar.gz", "struct.parquet", "binary.parquet")
    return {
        "folder": str(photos),
        "glob": f"{photos}/*.jpg",
        **{name: str(folder / name) for name in (*names, *containers)},
        "zip": f"zip://**::{folder / 'photos.zip'}",
    }


def remote_sources(folder: Path, photos: Path, s3: S3Server, http: str) -> dict[str, str]:
    """Upload them to the servers; return sources in S3, by listing and by inventory, and HTTP."""
    fs = s3fs.S3FileSystem(endpoint_url=s3.endpoint)
    fs.call_s3("create_bucket", Bucket="photos")
    for path in photos.iterdir():
        fs.call_s3("put_object", Bucket="photos", Key=f"a b/{path.name}", Body=path.read_bytes())
    for name in ("shard.tar", "struct.parquet", "list.jsonl.gz"):
        fs.call_s3("put_object", Bucket="photos", Key=name, Body=(folder / name).read_bytes())
    urls = "\n".join(f"{http}/photos/{path.name}" for path in photos.iterdir())
    (folder / "urls.txt").write_text(urls)
    objects = [version(f"a b/{path.name}") for path in photos.iterdir()]
    inventories = {
        f"inventory, {kind}": str(write_inventory(folder / kind, objects, file_format=kind))
        for kind in ("CSV", "Parquet")
    }
    return {
        "S3 folder": "s3://photos/a b/",
        "S3 glob": "s3://photos/**/*.jpg",
        "S3 shard.tar": "s3://photos/shard.tar",
        "S3 struct.parquet": "s3://photos/struct.parquet",
        **inventories,
        "URLs": str(folder / "urls.txt"),
        "HTTP list.csv": f"{http}/list.csv",
        "HTTP shard.tar": f"{http}/shard.tar",
    }


@contextmanager
def http_server(folder: Path) -> Iterator[str]:
    """Serve a folder over HTTP in another process; yield the URL."""
    command = [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1"]
    with subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout
        port = re.search(r"port (\d+)", process.stdout.readline())
        assert port
        try:
            yield f"http://127.0.0.1:{port[1]}"
        finally:
            process.terminate()


if __name__ == "__main__":
    sys.exit(main())
