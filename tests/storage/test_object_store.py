"""An object store as OUT: which URLs can be, what is read of it, what is said when it fails."""

import errno
import itertools
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pytest
from s3fs.core import S3File

from captioner.jobs import JobConfig, run_job
from captioner.jobs.errors import ExitCode, JobError, TemporaryError, UsageError
from captioner.jobs.planning.partitions import read_partition
from captioner.jobs.storage.backends import object_store
from captioner.jobs.storage.backends.paths import out_path
from captioner.jobs.storage.filesystems import configure
from captioner.jobs.table.commits.commit import commit, parts_of
from captioner.jobs.table.compaction.compact import compact
from captioner.jobs.table.exclusive_writer import exclusive_writer
from captioner.jobs.table.layout import OutFolder
from captioner.jobs.table.status import read_status
from tests.support.stores import SECRET, locked, new_run, put_rows


@pytest.fixture
def job(store_job: JobConfig) -> JobConfig:
    """Captions eight photographs into a store."""
    return store_job


def test_a_url_that_nothing_can_write_is_refused() -> None:
    with pytest.raises(UsageError, match="nothing can open nonsense://"):
        out_path("nonsense://x")
    with pytest.raises(UsageError, match="lies in an archive"):
        out_path("zip://a::s3://b/c.zip")
    with pytest.raises(UsageError, match="cannot be written to"):
        out_path("https://example.org/out")


@pytest.mark.parametrize("name", ["a[1]", "all*", "what?"])
def test_a_prefix_that_looks_like_a_glob_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="looks like a glob"):
        out_path(f"s3://bucket/{name}/out")


def test_a_job_keeps_the_url_of_its_table_from_any_working_directory(tmp_path: Path) -> None:
    job = JobConfig("photos", "s3://bucket//a b/out", storage_options={"s3": {"key": SECRET}})
    assert job.resolved().out == job.out
    assert 'out = "s3://bucket//a b/out"' in job.resolved().to_toml()
    assert SECRET not in job.resolved().to_toml()
    assert JobConfig("photos", tmp_path.as_uri()).resolved().out == tmp_path


def test_of_a_large_file_only_the_columns_asked_for_travel(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_store, "WHOLE_BYTES", 0)
    run, random = new_run(url), np.random.default_rng(0)
    size = 200_000
    table = pa.table({"status": ["ok"] * size, "captioner": ["c"] * size, "x": random.random(size)})
    commit(table, run, "000000")
    with locked(run) as lock:
        parts_of(run).publish("000000", lock)
    fetched = []
    fetch_range = S3File._fetch_range

    def counted(file: S3File, start: int, end: int) -> bytes:
        fetched.append(end - start)
        data: bytes = fetch_range(file, start, end)
        return data

    monkeypatch.setattr(S3File, "_fetch_range", counted)
    status = read_status(url)
    assert status.images == size and status.bytes > 1_000_000
    assert 0 < sum(fetched) < 200_000


# What is said when a store cannot be used


def test_a_package_that_is_missing_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_protocol: str) -> None:
        raise ImportError("no module named s3fs")

    monkeypatch.setattr(fsspec, "get_filesystem_class", missing)
    for reader in (read_status, compact):
        with pytest.raises(UsageError, match=r"s3:// needs .* pip install 'captioner\[s3\]'"):
            reader("s3://bucket/out")


def test_a_bucket_that_is_not_there_is_an_error_of_the_user(job: JobConfig) -> None:
    with pytest.raises(UsageError, match=r"cannot use s3://nowhere/out: .*bucket does not exist"):
        run_job(replace(job, out="s3://nowhere/out"))
    with pytest.raises(UsageError, match="s3://nowhere/out holds no caption table"):
        read_status("s3://nowhere/out")


def test_a_store_that_refuses_or_does_not_answer_is_named(
    job: JobConfig, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class EndpointConnectionError(Exception):
        __module__ = "botocore.exceptions"

    fs = out_path(url).fs
    for error, kind, text in [
        (PermissionError("Access Denied"), UsageError, "Access Denied; give a bucket"),
        (EndpointConnectionError("no route"), TemporaryError, "no route; what is committed stays"),
    ]:
        with monkeypatch.context() as patch:

            def fail(*_: object, error: Exception = error, **__: object) -> None:
                raise error

            patch.setattr(fs, "pipe_file", fail)
            with pytest.raises(kind, match=text) as raised:
                run_job(job)
            assert url in str(raised.value)


def test_an_object_that_is_no_parquet_is_told_from_a_store_that_fails(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = new_run(url).part("000000")
    put_rows(part, "a")
    assert read_status(url).images == 1
    with monkeypatch.context() as patch:
        patch.setattr(object_store, "WHOLE_BYTES", 0)

        def fail(*_: object) -> None:
            raise TimeoutError(f"no answer for {SECRET}")

        patch.setattr(S3File, "_fetch_range", fail)
        configure({"gs": {"token": SECRET}})
        with pytest.raises(TemporaryError, match=r"does not answer as it should: no answer for \*"):
            read_status(url)
        configure({})
    part.write_bytes(part.read_bytes()[:50])
    for reader in (read_status, compact):
        with pytest.raises(UsageError, match="is not a file of a caption table"):
            reader(url)


def test_a_plan_that_is_gone_is_an_os_error(url: str) -> None:
    with pytest.raises(OSError, match=r"plan\.arrow"):
        read_partition(new_run(url).scratch, 0)


def test_a_listing_that_fails_is_no_empty_table(
    job: JobConfig, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_job(job)
    configure(job.storage_options)
    out = OutFolder(out_path(url))
    fs = type(out.captions.fs)
    lists, calls = fs._lsdir, itertools.count()

    async def lsdir(self: Any, *arguments: Any, **options: Any) -> Any:
        if next(calls) == number:
            raise OSError("SlowDown")
        return await lists(self, *arguments, **options)

    monkeypatch.setattr(fs, "_lsdir", lsdir)
    for number in range(3):  # noqa: B007 (lsdir has it)
        calls = itertools.count()
        with suppress(OSError):
            assert out.table_files()


def test_objects_that_cannot_be_removed_are_an_error(
    job: JobConfig, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_job(job)
    configure(job.storage_options)
    out = OutFolder(out_path(url))
    captions, names = out.captions, [path.name for path in out.table_files()]

    async def removes_nothing(*_: Any, **__: Any) -> list[str]:
        return []

    monkeypatch.setattr(type(captions.fs), "_bulk_delete", removes_nothing)
    with pytest.raises(OSError, match="cannot be removed"):
        out.storage.remove_files(captions, names, Path())
    with pytest.raises(OSError, match="cannot be removed"):
        out.storage.remove_tree(captions)


def test_a_full_disk_is_not_the_fault_of_the_store(url: str) -> None:
    writing = exclusive_writer(new_run(url))
    with pytest.raises(JobError, match="No space left") as caught, writing:
        raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.exit_code == ExitCode.FAULT


def test_a_full_temporary_folder_does_not_keep_a_report_from_the_store(
    url: str, tmp_path: Path
) -> None:
    run = new_run(url)
    run.storage.write(run.report, b"{}", tmp_path / "missing")
    assert run.storage.read_bytes(run.report) == b"{}"


def test_a_temporary_folder_that_cannot_be_made_is_a_fault_of_this_machine(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(**_: object) -> str:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(object_store, "TemporaryFolder", full)
    with pytest.raises(JobError, match="No space left") as caught, exclusive_writer(new_run(url)):
        pass
    assert caught.value.exit_code == ExitCode.FAULT
