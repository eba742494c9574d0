"""Runs with OUT on an object store, which is moto's S3 server, and with real workers."""

import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from upath import UPath

from captioner.jobs import JobConfig, run_job
from captioner.jobs.preview import preview_job
from captioner.jobs.storage.backends import object_store
from captioner.jobs.storage.backends.object_store import ObjectStore
from captioner.jobs.storage.backends.paths import out_path
from captioner.jobs.table.compaction.compact import compact
from captioner.jobs.table.exclusive_writer import exclusive_writer
from captioner.jobs.table.layout import OutFolder
from captioner.jobs.table.status import read_status
from captioner.schemas.job_report import JobReport
from tests.support.commands import captioner, command, environment
from tests.support.photographs import photograph, write_photographs
from tests.support.servers import CREDENTIALS, S3Server
from tests.support.stores import SECRET, keys, new_run, parts, put_rows, rows, write_s3_job


@pytest.fixture
def job(store_job: JobConfig) -> JobConfig:
    """Return a job that captions eight photographs into a store."""
    return store_job


# Runs


def test_a_run_leaves_only_the_table_and_its_records(
    job: JobConfig, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    report = run_job(job)
    assert (report.exit_code, report.images, report.captioned) == (0, 8, 8)
    assert sorted(rows(url)) == [f"{n:03d}.jpg" for n in range(8)]
    records = ("job.toml", "report.json", "report.html", "events.jsonl")
    assert keys(url) == {f"runs/{report.run_id}/{name}" for name in records}
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


def test_the_next_run_handles_new_changed_failed_and_vanished_images(
    job: JobConfig, url: str
) -> None:
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
    monkeypatch.setattr(object_store, "WHOLE_BYTES", 0)
    run_job(job)
    write_photographs(Path(job.source), 9)
    (Path(job.source) / "000.jpg").write_bytes(photograph(20))
    report = run_job(job)
    assert (report.new, report.changed, report.already_there) == (1, 1, 7)
    assert len(rows(url)) == read_status(url).images == 9


def test_a_run_to_a_folder_imports_no_package_of_an_object_store() -> None:
    modules = "captioner.jobs.run, captioner.jobs.execution.worker.worker, captioner.jobs.cli.text"
    code = f"import sys, {modules}; print('s3fs' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"


def test_an_image_that_kills_its_process_costs_its_own_row_only(job: JobConfig, url: str) -> None:
    (Path(job.source) / "002.jpg").write_bytes(b"DIE!")
    report = run_job(replace(job, partition_size=4))
    assert report.statuses == {"ok": 7, "crashed": 1}
    assert rows(url)["002.jpg"]["status"] == "crashed"


def test_the_next_run_resumes_a_killed_one(job: JobConfig, tmp_path: Path, url: str) -> None:
    photos = write_photographs(tmp_path / "slow", 40, harm=b"SLOW")
    size = ("--partition-size", 4, "--workers", 1, "--precision", "float32")  # as on a scheduler
    line = ("run", photos, "--out", url, "--checkpoint", job.checkpoint, *size)
    process = subprocess.Popen(command(*line), env=environment(), start_new_session=True)
    while process.poll() is None and len(OutFolder(out_path(url)).table_files()) < 2:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    then = len(rows(url))
    assert 0 < then < 40
    assert [key for key in keys(url) if "scratch" in key]
    assert run_job(replace(job, source=photos)).already_there == then
    assert len(rows(url)) == 40
    assert not [key for key in keys(url) if "scratch" in key]


def test_events_are_on_the_store_before_the_run_ends(
    job: JobConfig, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    uploaded = []
    put = ObjectStore.put

    def seen(store: ObjectStore, file: Path, path: UPath) -> None:
        if path.name == "events.jsonl":
            uploaded.append(file.read_bytes().count(b"\n"))
        put(store, file, path)

    monkeypatch.setattr(ObjectStore, "put", seen)
    monkeypatch.setattr("captioner.jobs.execution.record.recorder.EVENTS_SECONDS", -1.0)
    run_job(job)
    assert uploaded[0] == 1 and len(uploaded) > 2


# Sources, options, copies, and the other commands


def test_the_storage_options_of_a_job_file_are_used_and_written_nowhere(
    store: S3Server, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = store.bucket({f"photos/{n}.jpg": photograph(n) for n in range(5)})
    out, photos = f"{bucket}/out", write_photographs(tmp_path / "photos", 1)
    with monkeypatch.context() as patch:
        for name in ("AWS_ENDPOINT_URL", *CREDENTIALS):
            patch.delenv(name)
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        settings = {"source": f"{bucket}/photos", "out": out, "checkpoint": tiny_checkpoint}
        job = write_s3_job(tmp_path / "job.toml", store, SECRET, **settings)
        line = ("--config", job, "--workers", 2, "--partition-size", 2)
        planned = captioner("plan", *line, "--sample", 2, "--workers", 1)
        done = captioner("run", *line)
        with_options = job.read_text()
        job.write_text(with_options.replace('"us-east-1"', '"us-east-1", no_such = 1'))
        wrong = captioner("run", *line)
        job.write_text(with_options.replace(f'"{SECRET}"', f'"{SECRET}"\nno_such = "{SECRET}"'))
        unknown = captioner("run", *line, photos)
        job.write_text(with_options.replace(store.endpoint, f"http://127.0.0.1:1/{SECRET}"))
        patch.setenv("AWS_MAX_ATTEMPTS", "1")
        silent = captioner("run", *line, photos)
    assert (planned.returncode, done.returncode) == (0, 0), planned.stderr + done.stderr
    assert "to caption 5 (5 new)" in planned.stdout and f"{out}/captions" in planned.stdout
    assert [row["status"] for row in rows(out).values()] == ["ok"] * 5
    assert wrong.returncode in (2, 75), wrong.stderr
    assert (unknown.returncode, silent.returncode) == (2, 75), unknown.stderr + silent.stderr
    assert f"cannot use {out}" in unknown.stderr and "no_such" in unknown.stderr
    assert f"{out} does not answer as it should: the connection was refused" in silent.stderr
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


def test_a_plan_describes_a_run_and_writes_nothing(job: JobConfig, url: str) -> None:
    preview = preview_job(job, sample=4)
    assert preview.estimate and (preview.images, preview.table) == (8, f"{url}/captions")
    assert keys(url) == set() and not OutFolder(out_path(url)).table_files()
    run_job(job)
    preview = preview_job(job, sample=0)
    assert (preview.images, preview.counts.already_there) == (0, 8)


@pytest.mark.parametrize("block", [3, 1000])
def test_images_reuse_the_captions_of_identical_images_in_the_table(
    job: JobConfig, url: str, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr("captioner.jobs.pipeline.hash_index.BLOCK", block)
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


def test_a_worker_captions_identical_images_once(job: JobConfig, url: str, one_worker: str) -> None:
    write_photographs(Path(job.source) / "copies", 8)
    report = run_job(replace(job, scheduler=one_worker, partition_size=8))
    assert (report.partitions, report.captioned, report.reused) == (2, 16, 8)
    assert len(pd.read_parquet(f"{url}/captions")) == 16


def test_small_files_become_one_with_the_same_rows(job: JobConfig, url: str) -> None:
    run_job(job)
    write_photographs(Path(job.source), 12)
    run_job(job)
    before, records = rows(url), keys(url)
    count = len(OutFolder(out_path(url)).table_files())
    done = captioner("compact", url)
    assert done.returncode == 0, done.stderr
    assert f"files      1 (before: {count})" in done.stdout
    assert (rows(url).keys(), keys(url)) == (before.keys(), records)
    report = run_job(job)
    assert (report.planned, report.already_there) == (0, 12)
    (Path(job.source) / "003.jpg").write_bytes(photograph(20))
    assert run_job(job).changed == 1
    assert len(rows(url)) == 12


def test_compacting_removes_superseded_rows(job: JobConfig, url: str) -> None:
    run_job(job)
    part = OutFolder(out_path(url)).table_files()[0]
    part.with_name(f"z{part.name}").write_bytes(part.read_bytes())
    done = compact(url, quiet=True)
    assert (done.rows, done.files, done.table) == (8, 1, f"{url}/captions")
    assert done.superseded > 0 and len(rows(url)) == 8


@pytest.mark.parametrize(
    ("step", "files_left"),
    [("put", 4), ("remove_files", 1), ("remove", 1)],
)
def test_the_next_command_finishes_or_undoes_a_compaction_that_died_at_any_step(
    url: str, monkeypatch: pytest.MonkeyPatch, step: str, files_left: int
) -> None:
    run = new_run(url)
    for number in range(4):
        put_rows(run.part(f"{number:06d}"), f"image-{number}")
    put = ObjectStore.put

    def die(store: ObjectStore, *arguments: Any) -> None:
        if step == "put" and arguments[1].suffix != ".parquet":
            put(store, *arguments)  # the journal
        else:
            raise Died

    with monkeypatch.context() as patch, pytest.raises(Died):
        patch.setattr("captioner.jobs.table.compaction.compact.finish_merge", lambda *_: None)
        patch.setattr(ObjectStore, step, die)
        compact(url, quiet=True)
    assert run.storage.exists(run.out.merge_journal)
    assert set(pd.read_parquet(f"{url}/captions")["image_uri"]) == {f"image-{n}" for n in range(4)}
    with exclusive_writer(new_run(url)):
        assert len(parts(run)) == files_left
    assert not run.storage.exists(run.out.merge_journal)
    assert sorted(rows(url)) == [f"image-{n}" for n in range(4)]
    assert compact(url, quiet=True).files == 1
    assert sorted(rows(url)) == [f"image-{n}" for n in range(4)]


class Died(BaseException):
    """Stands for the death of the process."""
