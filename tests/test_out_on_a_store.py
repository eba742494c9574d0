"""Runs whose OUT is on an object store: moto's server, with S3's API, and real workers."""

import errno
import itertools
import json
import os
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import (
    CREDENTIALS,
    S3Server,
    captioner,
    command,
    environment,
    photograph,
    two_workers,
    write_photographs,
)
from s3fs.core import S3File
from upath import UPath

from jobs import JobConfig, run_job
from jobs import lease as lease_module
from jobs import store as store_module
from jobs.commit import commit, publish, write_whole
from jobs.compact import compact
from jobs.errors import ExitCode, JobError, TemporaryError, UsageError
from jobs.folders import OutFolder, RunFolder
from jobs.lease import Holder, Lease, check_lease, lease
from jobs.locks import revoke
from jobs.plan import read_partition
from jobs.preview import preview_job
from jobs.report import read_status
from jobs.storage import configure
from jobs.store import (
    OutPath,
    create,
    files,
    is_store,
    job_errors,
    out_path,
    remove_objects,
    remove_tree,
)
from jobs.writing import only_writer
from schemas.caption_table import CaptionRow, Status, file_metadata, rows_to_table
from schemas.job_report import JobReport

TABLE = pa.table({"image_uri": ["a"]})
SECRET = "hush-hush"


@pytest.fixture(scope="module")
def store(s3_server: S3Server) -> Iterator[S3Server]:
    """The S3 server, which this process and those it starts find by the environment."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", s3_server.endpoint)
        yield s3_server
    fsspec.get_filesystem_class("s3").clear_instance_cache()


@pytest.fixture(scope="module")
def workers(store: S3Server) -> Iterator[str]:
    """The address of a Dask cluster of two workers that reach the store."""
    with two_workers() as address:
        yield address


@pytest.fixture
def url(store: S3Server) -> str:
    """An OUT in a new bucket."""
    return f"{store.bucket({})}/collections/photos"


@pytest.fixture
def job(tmp_path: Path, url: str, workers: str, tiny_checkpoint: Path) -> JobConfig:
    """Captions the eight photographs of tmp_path/photos into a store."""
    write_photographs(tmp_path / "photos", 8)
    return JobConfig(
        source=tmp_path / "photos",
        out=url,
        checkpoint=tiny_checkpoint,
        scheduler=workers,
        batch_size=8,
        partition_size=3,
        quiet=True,
    )


@pytest.fixture
def short_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lease that has expired as soon as it is read, and is watched for no time."""
    monkeypatch.setattr(lease_module, "LEASE_SECONDS", -1.0)
    monkeypatch.setattr(lease_module, "WATCH_SECONDS", 0.0)
    monkeypatch.setattr(lease_module, "CONFIRM_SECONDS", -1.0)


def rows(url: object) -> dict[str, dict[str, object]]:
    """The rows of the table by file name; each image has one."""
    table = pd.read_parquet(f"{url}/captions").to_dict("records")
    by_name = {Path(row["image_uri"]).name: row for row in table}
    assert len(by_name) == len(table)
    return by_name


def keys(url: object) -> set[str]:
    """The objects below OUT, but for the table's and the lock's."""
    out = out_path(str(url))
    below = (key.removeprefix(out.path).lstrip("/") for key in out.fs.find(out.path))
    return {key for key in below if not key.startswith(("captions/", "runs/.lock/"))}


def new_run(url: str) -> RunFolder:
    return OutFolder(out_path(url)).new_run()


def parts(run: RunFolder) -> list[str]:
    return [path.name for path in run.out.table_files()]


# Runs


def test_a_run_leaves_the_table_and_its_papers_and_nothing_else(
    job: JobConfig, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    report = run_job(job)
    assert (report.exit_code, report.images, report.captioned) == (0, 8, 8)
    assert sorted(rows(url)) == [f"{n:03d}.jpg" for n in range(8)]
    papers = {f"runs/{report.run_id}/{n}" for n in ("job.toml", "report.json", "events.jsonl")}
    assert keys(url) == papers
    run = OutFolder(out_path(url)).runs / report.run_id
    assert JobReport.from_json((run / "report.json").read_text()) == report
    assert report.table == f"{url}/captions"
    assert f'out = "{url}"' in (run / "job.toml").read_text()
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    assert sum(event["images"] for event in events) == 8
    status = read_status(url)
    assert (status.table, status.images, status.statuses) == (report.table, 8, {"ok": 8})
    done = captioner("status", url)
    assert f"table      {url}/captions" in done.stdout, done.stderr


def test_the_next_run_does_what_is_new_changed_failed_and_gone(job: JobConfig, url: str) -> None:
    photos = Path(job.source)
    (photos / "missing.jpg").symlink_to("nowhere.jpg")
    run_job(job)
    before = rows(url)
    (photos / "003.jpg").write_bytes(photograph(20))
    (photos / "007.jpg").write_bytes(photograph(21))
    (photos / "000.jpg").unlink()
    write_photographs(photos, 10)
    (photos / "000.jpg").unlink()
    report = run_job(replace(job, prune=True, retry_failed=[]))
    assert (report.new, report.changed, report.retried, report.pruned) == (2, 2, 1, 1)
    after = rows(url)
    assert sorted(after) == [*(f"{n:03d}.jpg" for n in range(1, 10)), "missing.jpg"]
    for name in ("003.jpg", "007.jpg", "008.jpg", "missing.jpg"):
        assert after[name]["run_id"] == report.run_id
    assert after["001.jpg"]["run_id"] == before["001.jpg"]["run_id"]
    assert after["003.jpg"]["image_sha256"] != before["003.jpg"]["image_sha256"]
    assert run_job(job).planned == 0
    assert not [key for key in keys(url) if "scratch" in key or "replacements" in key]


def test_large_objects_are_read_in_parts(
    job: JobConfig, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "WHOLE_BYTES", 0)
    run_job(job)
    write_photographs(Path(job.source), 9)
    (Path(job.source) / "000.jpg").write_bytes(photograph(20))
    report = run_job(job)
    assert (report.new, report.changed, report.already_there) == (1, 1, 7)
    assert len(rows(url)) == read_status(url).images == 9


def test_of_a_large_file_only_the_columns_asked_for_travel(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "WHOLE_BYTES", 0)
    run, random = new_run(url), np.random.default_rng(0)
    size = 200_000
    table = pa.table({"status": ["ok"] * size, "captioner": ["c"] * size, "x": random.random(size)})
    commit(table, run, "000000")
    publish(run, "000000")
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


def test_a_run_to_a_folder_needs_no_package_of_a_store() -> None:
    code = "import sys, jobs.run, jobs.worker, jobs.report; print('s3fs' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"


def test_an_image_that_kills_its_process_costs_its_own_row_only(job: JobConfig, url: str) -> None:
    (Path(job.source) / "002.jpg").write_bytes(b"KILL")
    report = run_job(replace(job, partition_size=4))
    assert report.statuses == {"ok": 7, "crashed": 1}
    assert rows(url)["002.jpg"]["status"] == "crashed"


def test_a_run_that_was_killed_goes_on_by_the_same_command(
    tmp_path: Path, url: str, tiny_checkpoint: Path
) -> None:
    photos = write_photographs(tmp_path / "photos", 40, harm=b"SLOW")
    size = ("--partition-size", 4, "--workers", 1)
    line = ("run", photos, "--out", url, "--checkpoint", tiny_checkpoint, *size)
    process = subprocess.Popen(command(*line), env=environment(), start_new_session=True)
    captions = out_path(url) / "captions"
    while process.poll() is None and len(files(captions, "*.parquet")) < 2:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    then = len(rows(url))
    assert 0 < then < 40
    assert [key for key in keys(url) if "scratch" in key]
    done = captioner(*line)
    assert done.returncode == 0, done.stderr
    assert f"{then} already in the table" in done.stdout
    assert len(rows(url)) == 40
    assert not [key for key in keys(url) if "scratch" in key]


def test_events_are_on_the_store_before_the_run_ends(
    job: JobConfig, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    uploaded = []
    put = store_module.put

    def seen(file: Path, path: UPath) -> None:
        uploaded.append((path.name, file.read_bytes().count(b"\n")))
        put(file, path)

    monkeypatch.setattr("jobs.tally.put", seen)
    monkeypatch.setattr("jobs.tally.EVENTS_SECONDS", -1.0)
    run_job(job)
    assert uploaded[0] == ("events.jsonl", 1) and len(uploaded) > 2


# Sources, options, copies, and the other commands


def test_a_job_on_s3_has_its_options_from_the_job_file_and_writes_them_nowhere(
    store: S3Server, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = store.bucket({f"photos/{n}.jpg": photograph(n) for n in range(5)})
    out, photos = f"{bucket}/out", write_photographs(tmp_path / "photos", 1)
    with monkeypatch.context() as patch:
        for name in ("AWS_ENDPOINT_URL", *CREDENTIALS):
            patch.delenv(name)
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        job = tmp_path / "job.toml"
        job.write_text(
            f'source = "{bucket}/photos"\nout = "{out}"\ncheckpoint = "{tiny_checkpoint}"\n'
            f'[storage_options.s3]\nendpoint_url = "{store.endpoint}"\n'
            f'key = "nobody"\nsecret = "{SECRET}"\nclient_kwargs = {{region_name = "us-east-1"}}\n'
        )
        line = ("--config", job, "--workers", 2, "--partition-size", 2)
        planned = captioner("plan", *line, "--sample", 2)
        done = captioner("run", *line)
        with_options = job.read_text()
        job.write_text(with_options.replace('"us-east-1"', '"us-east-1", no_such = 1'))
        wrong = captioner("run", *line)
        job.write_text(with_options.replace(f'"{SECRET}"', f'"{SECRET}"\nno_such = "{SECRET}"'))
        unknown = captioner("run", *line, photos)
        job.write_text(with_options.replace(store.endpoint, f"http://127.0.0.1:1/{SECRET}"))
        silent = captioner("run", *line, photos)
    assert (planned.returncode, done.returncode) == (0, 0), planned.stderr + done.stderr
    assert "to caption 5 (5 new)" in planned.stdout and f"{out}/captions" in planned.stdout
    assert [row["status"] for row in rows(out).values()] == ["ok"] * 5
    assert wrong.returncode in (2, 75), wrong.stderr
    assert (unknown.returncode, silent.returncode) == (2, 75), unknown.stderr + silent.stderr
    assert f"cannot use {out}" in unknown.stderr and "no_such" in unknown.stderr
    assert f"{out} does not answer as it should" in silent.stderr and "***" in silent.stderr
    fs = out_path(out).fs
    for text in (
        *(fs.cat_file(key) for key in fs.find(out)),
        *(f"{run.stdout}{run.stderr}".encode() for run in (planned, done, wrong, unknown, silent)),
    ):
        assert SECRET.encode() not in text
        assert store.endpoint.encode() not in text


def test_the_images_of_an_archive_are_captioned_to_a_store(job: JobConfig, url: str) -> None:
    photos = Path(job.source)
    with tarfile.open(photos.parent / "photos.tar", "w") as archive:
        for path in sorted(photos.iterdir()):
            archive.add(path, path.name)
    report = run_job(replace(job, source=photos.parent / "photos.tar"))
    assert report.captioned == len(pd.read_parquet(f"{url}/captions")) == 8


def test_a_plan_says_what_a_run_would_do_and_writes_nothing(job: JobConfig, url: str) -> None:
    preview = preview_job(job, sample=4)
    assert preview.estimate and (preview.images, preview.table) == (8, f"{url}/captions")
    assert keys(url) == set() and not files(out_path(url) / "captions", "*")
    run_job(job)
    preview = preview_job(job, sample=0)
    assert (preview.images, preview.counts.already_there) == (0, 8)


@pytest.mark.parametrize("chunk", [3, 1000])
def test_images_take_the_captions_that_the_table_has_of_the_same_bytes(
    job: JobConfig, url: str, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr("jobs.hash_index.CHUNK", chunk)
    run_job(job)
    before = rows(url)
    for path in sorted(Path(job.source).iterdir()):
        path.rename(path.with_name(f"renamed-{path.name}"))
    report = run_job(replace(job, prune=True))
    assert (report.reused, report.captioned, report.pruned) == (8, 8, 8)
    after = rows(url)
    assert {name: row["caption"] for name, row in before.items()} == {
        name.removeprefix("renamed-"): row["caption"] for name, row in after.items()
    }


def test_copies_are_found_among_what_one_worker_has_captioned(job: JobConfig, url: str) -> None:
    write_photographs(Path(job.source) / "copies", 8)
    report = run_job(replace(job, partition_size=8))
    assert report.captioned == len(pd.read_parquet(f"{url}/captions")) == 16
    assert report.reused in (0, 8)  # as the other worker took them, or the same


def test_small_files_become_one_with_the_same_rows(job: JobConfig, url: str) -> None:
    run_job(job)
    write_photographs(Path(job.source), 12)
    run_job(job)
    before, papers = rows(url), keys(url)
    count = len(OutFolder(out_path(url)).table_files())
    done = captioner("compact", url)
    assert done.returncode == 0, done.stderr
    assert f"files      1 (before: {count})" in done.stdout
    assert (rows(url).keys(), keys(url)) == (before.keys(), papers)
    report = run_job(job)
    assert (report.planned, report.already_there) == (0, 12)
    (Path(job.source) / "003.jpg").write_bytes(photograph(20))
    assert run_job(job).changed == 1
    assert len(rows(url)) == 12


def test_rows_that_have_a_later_one_go_when_a_table_is_compacted(job: JobConfig, url: str) -> None:
    run_job(job)
    part = OutFolder(out_path(url)).table_files()[0]
    part.with_name(f"z{part.name}").write_bytes(part.read_bytes())
    done = compact(url, quiet=True)
    assert (done.rows, done.files, done.table) == (8, 1, f"{url}/captions")
    assert done.superseded > 0 and len(rows(url)) == 8


@pytest.mark.parametrize(
    ("step", "files_left"),
    [("commit.put", 4), ("swap.remove_objects", 1), ("swap.remove", 1)],
)
def test_a_compaction_that_died_at_any_step_is_finished_or_forgotten_by_the_next_command(
    url: str, monkeypatch: pytest.MonkeyPatch, step: str, files_left: int
) -> None:
    run = new_run(url)
    for number in range(4):
        put_rows(run.part(f"{number:06d}"), f"image-{number}")

    def die(*_: object) -> None:
        raise Died

    with monkeypatch.context() as patch, pytest.raises(Died):
        patch.setattr(f"jobs.{step}", die)
        patch.setattr("jobs.compact.finish_swap", lambda *_: None)
        compact(url, quiet=True)
    assert run.out.swap_journal.exists()
    assert set(pd.read_parquet(f"{url}/captions")["image_uri"]) == {f"image-{n}" for n in range(4)}
    with only_writer(new_run(url)):
        assert len(parts(run)) == files_left
    assert not run.out.swap_journal.exists()
    assert sorted(rows(url)) == [f"image-{n}" for n in range(4)]
    assert compact(url, quiet=True).files == 1
    assert sorted(rows(url)) == [f"image-{n}" for n in range(4)]


class Died(BaseException):
    """The process is no more."""


def put_rows(path: OutPath, uri: str) -> None:
    """A file of a table, with one row."""
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
        write_whole([table], table.schema, path, Path(scratch))


def test_a_compaction_and_a_run_take_turns(job: JobConfig, url: str) -> None:
    run_job(job)
    run = new_run(url)
    with lease(run.out.root, run.run_id), pytest.raises(TemporaryError, match="in use by run"):
        compact(url, quiet=True)
    with pytest.raises(UsageError, match="holds no caption table"):
        compact(f"{url}/nowhere", quiet=True)


def test_a_run_that_was_taken_over_leaves_the_next_one_its_scratch(
    url: str, short_lease: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.writing._sigterm_interrupts", nullcontext)
    former, run = new_run(url), new_run(url)
    with ExitStack() as next_one:
        with only_writer(former):
            create(former.mark("a"))
            next_one.enter_context(only_writer(run))
            create(run.mark("b"))
        assert run.mark("b").exists() and not former.mark("a").exists()
    assert not run.mark("b").exists()


# What is said when a store cannot be used


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


def test_a_url_that_nothing_can_write_is_refused() -> None:
    with pytest.raises(UsageError, match="nothing can open nonsense://"):
        out_path("nonsense://x")
    with pytest.raises(UsageError, match="lies in an archive"):
        out_path("zip://a::s3://b/c.zip")
    with pytest.raises(UsageError, match="cannot be written to"):
        out_path("https://example.org/out")


def test_a_job_keeps_the_url_of_its_table_from_any_working_directory(tmp_path: Path) -> None:
    job = JobConfig("photos", "s3://bucket//a b/out", storage_options={"s3": {"key": SECRET}})
    assert job.resolved().out == job.out
    assert 'out = "s3://bucket//a b/out"' in job.resolved().to_toml()
    assert SECRET not in job.resolved().to_toml()
    assert JobConfig("photos", tmp_path.as_uri()).resolved().out == tmp_path


def test_a_package_that_is_missing_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_protocol: str) -> None:
        raise ImportError("no module named s3fs")

    monkeypatch.setattr(fsspec, "get_filesystem_class", missing)
    for reader in (read_status, compact):
        with pytest.raises(UsageError, match=r"s3:// needs .* pip install 'captioner\[s3\]'"):
            reader("s3://bucket/out")


def test_an_object_that_is_no_parquet_is_told_from_a_store_that_fails(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = new_run(url).part("000000")
    put_rows(part, "a")
    assert read_status(url).images == 1
    with monkeypatch.context() as patch:
        patch.setattr(store_module, "WHOLE_BYTES", 0)

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


# The lease


def test_a_second_run_is_refused_and_told_who_has_it_and_until_when(
    job: JobConfig, url: str
) -> None:
    run = new_run(url)
    with lease(run.out.root, run.run_id):
        holder = rf"in use by run {run.run_id}, process {os.getpid()} on .*after \d\d:\d\d:\d\d UTC"
        with pytest.raises(TemporaryError, match=holder):
            run_job(job)
        done = captioner("run", job.source, "--out", url, "--checkpoint", job.checkpoint)
        assert done.returncode == 75
    assert run_job(job).images == 8


def test_the_lease_of_a_process_of_this_machine_that_is_gone_is_free(url: str) -> None:
    code = (
        "import os; from jobs.store import out_path; from jobs.lease import lease\n"
        f"with lease(out_path({url!r}), 'killed'): os.kill(os.getpid(), 9)"
    )
    process = subprocess.run([sys.executable, "-c", code], env=environment(), check=False)
    assert process.returncode == -signal.SIGKILL
    with lease(out_path(url), "next"):
        assert lease_module._numbers(out_path(url)) == [2]


def test_a_lease_that_is_not_renewed_is_taken_over_and_its_run_notices(
    url: str, short_lease: None
) -> None:
    former, run = new_run(url), new_run(url)
    commit(TABLE, former, "000000")
    with (
        lease(former.out.root, former.run_id),
        lease(run.out.root, run.run_id),
        pytest.raises(TemporaryError, match=f"taken over by run {run.run_id}"),
    ):
        publish(former, "000000")
    assert parts(run) == []


def test_a_lease_that_is_renewed_while_the_next_run_looks_on_is_not_free(
    url: str, short_lease: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = out_path(url)
    with lease(out, "first"):
        (held,) = lease_module._held

        def renewed(_seconds: float) -> None:
            now = Holder.of_this_process("first")
            later = json.dumps(vars(now) | {"renewed_at": "2000-01-01T00:00:00+00:00"})
            held.path.write_text(later)

        monkeypatch.setattr(lease_module.time, "sleep", renewed)
        with pytest.raises(TemporaryError, match="in use by run first"), lease(out, "second"):
            pass


def test_a_run_renews_its_lease(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_module, "RENEW_SECONDS", 0.01)
    out = out_path(url)
    written = []
    write = Lease.write
    monkeypatch.setattr(Lease, "write", lambda held, **k: written.append(k) or write(held, **k))
    with lease(out, "first"):
        while len(written) < 3:
            time.sleep(0.01)
    assert written[-1] == {"is_free": True}
    with lease(out, "second"):
        pass


@pytest.mark.parametrize(
    ("number", "message"),
    [(2, "another run has just begun"), (3, "taken over by run thief")],
    ids=["at once", "came and went"],
)
def test_a_run_that_others_forestall_while_it_takes_over_is_refused(
    url: str, monkeypatch: pytest.MonkeyPatch, number: int, message: str
) -> None:
    out = out_path(url)
    with lease(out, "first"):
        pass
    monkeypatch.setattr(lease_module, "_free_lease", lambda *_: steal(out, number))
    with pytest.raises(TemporaryError, match=message), lease(out, "second"):
        pass


def test_a_run_that_comes_back_while_it_is_taken_over_makes_the_next_one_give_way(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = out_path(url)
    with lease(out, "first"):
        (held,) = lease_module._held
        monkeypatch.setattr(
            lease_module, "_free_lease", lambda *_: Holder("first", 1, "h", "m", "")
        )
        with (
            pytest.raises(TemporaryError, match=r"in use by run first.* after all"),
            lease(out, "b"),
        ):
            pass
        with pytest.raises(TemporaryError, match="taken over by run b"):
            held.renew()
    monkeypatch.undo()
    with lease(out, "third"):
        pass


def steal(out: UPath, number: int) -> None:
    Lease(out, "thief", number).write()


def test_a_store_that_cannot_tell_two_runs_apart_is_refused(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = out_path(url)
    monkeypatch.setattr(lease_module, "create", lambda path, content: path.write_bytes(content))
    with pytest.raises(UsageError, match="overwrites what it is to create"), lease(out, "first"):
        pass
    monkeypatch.undo()
    with lease(out, "first"):
        pass


def test_a_process_without_a_lease_has_nothing_to_lose(url: str) -> None:
    check_lease(out_path(url) / "captions")


# What takes the fence's place


def test_a_part_that_a_worker_hands_in_is_in_the_table_when_the_driver_says_so(url: str) -> None:
    run = new_run(url)
    commit(TABLE, run, "000000")
    assert parts(run) == []
    publish(run, "000000")
    assert parts(run) == [f"{run.run_id}-000000.parquet"]
    publish(run, "000000")  # after a worker that only seemed dead
    assert len(parts(run)) == 1


def test_a_part_that_was_handed_in_cannot_be_revoked_but_others_can(url: str) -> None:
    run = new_run(url)
    commit(TABLE, run, "000000")
    assert not revoke(run, "000000")
    assert revoke(run, "000001")


def test_a_worker_that_outlives_its_run_adds_nothing(job: JobConfig, url: str) -> None:
    former = new_run(url)
    run_job(job)
    before = keys(url)
    commit(TABLE, former, "000000")
    commit(TABLE, former, "000001", replaces=True)
    assert len(rows(url)) == 8
    report = run_job(job)
    assert (report.planned, report.already_there, report.vanished) == (0, 8, 0)
    assert {key for key in keys(url) if report.run_id not in key} == before


def test_an_image_that_a_sleeping_driver_added_twice_has_one_row_after_the_next_run(
    job: JobConfig, url: str
) -> None:
    run_job(job)
    part = OutFolder(out_path(url)).table_files()[0]
    part.with_name(f"z{part.name}").write_bytes(part.read_bytes())
    assert len(pd.read_parquet(f"{url}/captions")) > 8
    run_job(job)
    assert len(rows(url)) == 8


def test_a_failure_while_a_part_is_put_leaves_nothing(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = new_run(url)

    def half(_writer: pq.ParquetWriter, _table: pa.Table) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("jobs.commit.pq.ParquetWriter.write_table", half)
    with pytest.raises(OSError, match="No space left"):
        commit(TABLE, run, "000000")
    assert keys(url) == set()


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


@pytest.mark.parametrize("name", ["a[1]", "all*", "what?"])
def test_a_prefix_that_looks_like_a_glob_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="looks like a glob"):
        out_path(f"s3://bucket/{name}/out")


def test_objects_that_cannot_be_removed_are_an_error(
    job: JobConfig, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_job(job)
    configure(job.storage_options)
    captions = OutFolder(out_path(url)).captions
    assert is_store(captions)

    async def removes_nothing(*_: Any, **__: Any) -> list[str]:
        return []

    monkeypatch.setattr(type(captions.fs), "_bulk_delete", removes_nothing)
    with pytest.raises(OSError, match="cannot be removed"):
        remove_objects(captions, files(captions, "*"))
    with pytest.raises(OSError, match="cannot be removed"):
        remove_tree(captions)


def test_a_full_disk_is_not_the_fault_of_the_store(url: str) -> None:
    with pytest.raises(JobError, match="No space left") as caught, job_errors(out_path(url)):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.exit_code == ExitCode.FAULT
