"""OUT on an object store: the server, workers that reach it, a job, and its table."""

import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from pathlib import Path

import fsspec
import pandas as pd
import pyarrow as pa
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from captioner.jobs import JobConfig
from captioner.jobs.storage.backends import holder as holder_module
from captioner.jobs.storage.backends import lease as lease_module
from captioner.jobs.storage.backends.backend import Lock
from captioner.jobs.storage.backends.paths import OutPath, out_path
from captioner.jobs.table.commits.commit import write_whole
from captioner.jobs.table.layout import OutFolder, RunFolder
from captioner.schemas.caption_table import CaptionRow, Status, file_metadata, rows_to_table
from tests.support.clusters import two_workers
from tests.support.photographs import write_photographs
from tests.support.servers import CREDENTIALS, S3Server

TABLE = pa.table({"image_uri": ["a"]})
SECRET = "hush-hush"


@pytest.fixture(scope="module")
def store(s3_server: S3Server) -> Iterator[S3Server]:
    """Yield the S3 server, with its address in the environment of this process and its children."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", s3_server.endpoint)
        yield s3_server
    fsspec.get_filesystem_class("s3").clear_instance_cache()


@pytest.fixture(scope="session")
def store_workers(s3_server: S3Server, forkserver: None) -> Iterator[str]:
    """Yield the address of a Dask cluster of two workers that reach the store."""
    with two_workers(AWS_ENDPOINT_URL=s3_server.endpoint, **CREDENTIALS) as address:
        yield address


@pytest.fixture
def url(store: S3Server) -> str:
    """Return an OUT in a new bucket."""
    return f"{store.bucket({})}/collections/photos"


@pytest.fixture
def store_job(tmp_path: Path, url: str, store_workers: str, tiny_checkpoint: Path) -> JobConfig:
    """Return a job that captions the eight photographs of tmp_path/photos into a store."""
    write_photographs(tmp_path / "photos", 8)
    return JobConfig(
        source=tmp_path / "photos",
        out=url,
        checkpoint=tiny_checkpoint,
        scheduler=store_workers,
        send_secrets=True,
        batch_size=8,
        partition_size=3,
        quiet=True,
    )


@pytest.fixture
def empty_memory() -> Iterator[None]:
    """Empty fsspec's memory after the test."""
    yield
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]


@pytest.fixture
def short_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make leases expire at once, and others take them over without waiting."""
    monkeypatch.setattr(holder_module, "LEASE_SECONDS", -1.0)
    monkeypatch.setattr(holder_module, "WATCH_SECONDS", 0.0)
    monkeypatch.setattr(lease_module, "CONFIRM_SECONDS", -1.0)


def write_s3_job(path: Path, server: S3Server, secret: str, **settings: object) -> Path:
    """Write a job file with the S3 options of the server and this secret key."""
    lines = [f'{name} = "{value}"' for name, value in settings.items()]
    lines += ["[storage_options.s3]", f'endpoint_url = "{server.endpoint}"', 'key = "nobody"']
    lines += [f'secret = "{secret}"', 'client_kwargs = {region_name = "us-east-1"}', ""]
    path.write_text("\n".join(lines))
    return path


def rows(url: object) -> dict[str, dict[str, object]]:
    """Return the rows of the table by file name; each image has exactly one."""
    table = pd.read_parquet(f"{url}/captions").to_dict("records")
    by_name = {Path(row["image_uri"]).name: row for row in table}
    assert len(by_name) == len(table)
    return by_name


def keys(url: object) -> set[str]:
    """Return the objects below OUT, except those of the table and the lock."""
    out = out_path(str(url))
    below = (key.removeprefix(out.path).lstrip("/") for key in out.fs.find(out.path))
    return {key for key in below if not key.startswith(("captions/", "runs/.lock/"))}


def locked(run: RunFolder) -> AbstractContextManager[Lock]:
    """Hold the lock of OUT, as a run does."""
    return run.storage.lock(run.out.lock, run.out.root, run.run_id)


def new_run(url: str) -> RunFolder:
    return OutFolder(out_path(url)).new_run()


def parts(run: RunFolder) -> list[str]:
    return [path.name for path in run.out.table_files()]


def put_rows(path: OutPath, uri: str) -> None:
    """Write a file of a table, with one row."""
    row = CaptionRow(
        image_uri=uri,
        image_version=None,
        captioner="me",
        run_id="run",
        annotated_at=datetime(2026, 1, 1, tzinfo=UTC),
        status=Status.OK,
    )
    table = rows_to_table([row], pa.table({"x": [1]}), file_metadata({"me": {}}, None))
    with tempfile.TemporaryDirectory() as scratch:
        write_whole([table], table.schema, path, Path(scratch), nullcontext())
