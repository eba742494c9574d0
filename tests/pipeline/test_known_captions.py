"""Identical bytes are captioned once: in a run, and against the table."""

import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from captioner.jobs import JobConfig, run_job
from captioner.jobs.cli.text import summary
from captioner.jobs.pipeline import hash_index
from captioner.jobs.pipeline.hash_index import index_table
from captioner.jobs.table.layout import OutFolder, RunFolder
from captioner.lstm.captioner import LstmCaptioner
from captioner.schemas.caption_table import CONTENT_COLUMNS
from tests.support.photographs import photograph, write_photographs
from tests.support.tables import read_table, statuses


@pytest.fixture
def job(job: JobConfig, calibrated_checkpoint: Path) -> JobConfig:
    """With confidences."""
    return replace(job, checkpoint=calibrated_checkpoint, device="cpu")


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the batches that pass the network in this process."""
    sizes: list[int] = []
    encode = LstmCaptioner.encode

    def counting(self: LstmCaptioner, pixels: Any) -> Any:
        sizes.append(len(pixels))
        return encode(self, pixels)

    monkeypatch.setattr(LstmCaptioner, "encode", counting)
    return sizes


def rows(job: JobConfig) -> dict[str, dict[str, Any]]:
    """The rows of the table by file name; each image has one."""
    table = read_table(Path(job.out)).to_pylist()
    by_name = {Path(row["image_uri"]).name: row for row in table}
    assert len(by_name) == len(table)
    return by_name


def content(row: dict[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in ("image_sha256", *CONTENT_COLUMNS)}


def assert_alike(row: dict[str, Any], other: dict[str, Any]) -> None:
    """Compare what the network said of one image in two batches: its sums differ in last bits."""
    for name in ("confidence", "log_prob", "token_log_probs"):
        assert row[name] == pytest.approx(other[name], abs=1e-3)
    for one, two in zip(row["word_confidence"], other["word_confidence"], strict=True):
        assert one == {**two, "confidence": pytest.approx(two["confidence"], abs=1e-3)}
    for name in ("image_sha256", "width", "height", "format", "status", "caption"):
        assert row[name] == other[name]
    alternatives = zip(row["alternatives"], other["alternatives"], strict=True)
    assert all(one["caption"] == two["caption"] for one, two in alternatives)


def rename(folder: Path) -> None:
    for path in sorted(folder.iterdir()):
        path.rename(path.with_name(f"renamed-{path.name}"))


# Runs on two workers


def test_renamed_images_have_rows_of_their_own_and_the_same_captions(
    tmp_path: Path, job: JobConfig
) -> None:
    photos = write_photographs(tmp_path / "photos", 200)
    first = run_job(job)
    before = rows(job)
    rename(photos)
    second = run_job(replace(job, prune=True, partition_size=30))
    after = rows(job)
    assert (first.reused, first.captioned) == (0, 200)
    assert (second.reused, second.captioned, second.pruned) == (200, 200, 200)
    assert second.seconds.keys() == {"fetch", "commit"}
    assert "200 (200 reused from identical images)" in summary(second)
    assert len(after) == 200
    for name, row in before.items():
        other = after[f"renamed-{name}"]
        assert content(other) == content(row)
        assert (other["run_id"], other["captioner"]) == (second.run_id, row["captioner"])
        assert other["annotated_at"] > row["annotated_at"]
    assert run_job(job).planned == 0


def test_a_reused_caption_is_what_the_network_would_say_again(
    tmp_path: Path, job: JobConfig
) -> None:
    photos = write_photographs(tmp_path / "photos", 12)
    run_job(job)
    rename(photos)
    run_job(replace(job, prune=True))
    run_job(replace(job, out=tmp_path / "fresh", partition_size=5))
    fresh, reused = rows(replace(job, out=tmp_path / "fresh")), rows(job)
    assert fresh.keys() == reused.keys()
    for name, row in reused.items():
        assert_alike(row, fresh[name])


def test_a_touched_image_takes_the_caption_of_its_own_old_row(
    tmp_path: Path, job: JobConfig
) -> None:
    photos = write_photographs(tmp_path / "photos", 5)
    run_job(job)
    before = rows(job)
    os.utime(photos / "003.jpg", (1, 1))
    report = run_job(job)
    after = rows(job)
    assert (report.changed, report.reused) == (1, 1)
    assert content(after["003.jpg"]) == content(before["003.jpg"])
    assert after["003.jpg"]["image_version"] != before["003.jpg"]["image_version"]
    assert after["003.jpg"]["run_id"] == report.run_id


def test_captions_of_another_captioner_are_not_reused(
    tmp_path: Path, job: JobConfig, tiny_checkpoint: Path
) -> None:
    photos = write_photographs(tmp_path / "photos", 5)
    run_job(job)
    other = replace(job, checkpoint=tiny_checkpoint)
    redone = run_job(replace(other, stale="redo"))
    assert (redone.stale, redone.reused) == (5, 0)
    assert {row["captioner"] for row in rows(job).values()} == {redone.captioner}
    rename(photos)
    assert run_job(job).reused == 0
    assert run_job(replace(job, beam_size=2, stale="redo")).reused == 0


def test_needs_review_is_by_the_threshold_of_the_run(tmp_path: Path, job: JobConfig) -> None:
    photos = write_photographs(tmp_path / "photos", 12)
    run_job(job)
    assert {row["needs_review"] for row in rows(job).values()} == {None}
    rename(photos)
    report = run_job(replace(job, prune=True, min_confidence=0.5))
    assert report.reused == 12
    marked = {row["confidence"] < 0.5: row["needs_review"] for row in rows(job).values()}
    assert marked == {True: True, False: False}
    assert report.needs_review == sum(bool(row["needs_review"]) for row in rows(job).values())


def test_failures_are_not_reused(tmp_path: Path, job: JobConfig) -> None:
    photos = write_photographs(tmp_path / "photos", 2)
    for name in ("torn.jpg", "torn copy.jpg"):
        (photos / name).write_bytes(photograph(1)[:-200])
    first = run_job(job)
    assert (first.reused, first.statuses) == (0, {"ok": 2, "unreadable": 2})
    again = run_job(replace(job, retry_failed=["unreadable"]))
    assert (again.retried, again.reused, again.statuses) == (2, 0, {"unreadable": 2})
    errors = {row["error"] for row in rows(job).values() if row["status"] == "unreadable"}
    assert len(errors) == 1 and None not in errors


def test_a_copy_of_an_image_that_kills_its_process_has_the_same_row(
    tmp_path: Path, job: JobConfig
) -> None:
    photos = write_photographs(tmp_path / "photos", 2)
    for name in ("a.jpg", "b.jpg"):
        (photos / name).write_bytes(b"DIE!")
    run_job(job)
    assert statuses(tmp_path / "out") == {"ok": 2, "crashed": 2}


# What passes the network, seen from the worker's process


def test_copies_in_one_partition_pass_the_network_once(
    tmp_path: Path, job: JobConfig, one_worker: str, encoded: list[int]
) -> None:
    photos = write_photographs(tmp_path / "photos", 20)
    for path in sorted(photos.iterdir()):
        for copy in "abc":
            (photos / f"{path.stem}{copy}.jpg").write_bytes(path.read_bytes())
    report = run_job(replace(job, scheduler=one_worker, partition_size=500))
    assert report.partitions == 2  # at least 64 images each
    assert (report.images, report.reused) == (80, 60)
    assert encoded == [8, 8, 4]  # batches are full although most images are copies
    for name, row in rows(job).items():
        assert content(row) == content(rows(job)[f"{name[:3]}.jpg"])


def test_copies_in_other_partitions_pass_the_network_once(
    tmp_path: Path, job: JobConfig, one_worker: str, encoded: list[int]
) -> None:
    write_photographs(tmp_path / "photos" / "a", 10)
    write_photographs(tmp_path / "photos" / "b", 15)
    report = run_job(replace(job, scheduler=one_worker, partition_size=5))
    assert (report.partitions, report.captioned, report.reused) == (5, 25, 10)
    assert sum(encoded) == 15
    (events,) = Path(job.out).glob("runs/*/events.jsonl")
    lines = [json.loads(line) for line in events.read_text().splitlines()]
    assert [line["reused"] for line in lines] == [0, 0, 5, 5, 0]


def test_a_run_that_replaces_rows_reuses_those_it_has_written(
    tmp_path: Path, job: JobConfig, one_worker: str, encoded: list[int]
) -> None:
    photos = write_photographs(tmp_path / "photos", 10)
    job = replace(job, scheduler=one_worker, partition_size=5)
    run_job(job)
    encoded.clear()
    for number in range(10):
        (photos / f"{number:03d}.jpg").write_bytes(photograph(50 + number % 5))
    report = run_job(job)
    assert (report.changed, report.reused, sum(encoded)) == (10, 5, 5)
    hashes = [hashlib.sha256(photograph(50 + number % 5)).hexdigest() for number in range(10)]
    assert [row["image_sha256"] for row in rows(job).values()] == hashes


@pytest.mark.parametrize("fate", ["gone", "rewritten", "torn"])
def test_an_image_whose_file_of_the_table_has_changed_is_captioned_again(
    tmp_path: Path, job: JobConfig, one_worker: str, monkeypatch: pytest.MonkeyPatch, fate: str
) -> None:
    photos = write_photographs(tmp_path / "photos", 6)
    job = replace(job, scheduler=one_worker, partition_size=3)
    run_job(job)
    before = rows(job)
    rename(photos)
    first, _ = OutFolder(Path(job.out)).table_files()

    def change(run: RunFolder, captioner: str, folder: Path, *_: object) -> None:
        index_table(run, captioner, folder)
        if fate == "gone":
            first.unlink()
        elif fate == "torn":
            first.write_bytes(first.read_bytes()[:100])
        else:
            pq.write_table(pq.read_table(first).slice(0, 1), first)

    monkeypatch.setattr("captioner.jobs.run.index_table", change)
    report = run_job(job)
    assert (report.captioned, report.reused) == (6, {"gone": 3, "torn": 3, "rewritten": 4}[fate])
    first.unlink(missing_ok=True)
    after = rows(job)
    for name, row in before.items():
        assert_alike(after[f"renamed-{name}"], row)


def test_hashes_that_begin_alike_give_no_wrong_caption(
    tmp_path: Path, job: JobConfig, one_worker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hash_index, "prefix_of", lambda sha256: np.uint64(7))
    monkeypatch.setattr(
        hash_index, "prefixes_of", lambda digits: np.full(len(digits) // 16, 7, np.uint64)
    )
    photos = write_photographs(tmp_path / "photos", 12)
    job = replace(job, scheduler=one_worker, partition_size=4)
    run_job(job)
    before = rows(job)
    rename(photos)
    report = run_job(replace(job, prune=True))
    assert (report.captioned, report.pruned) == (12, 12)
    assert 0 < report.reused < 12  # the index has one file for a prefix
    after = rows(job)
    assert all(content(after[f"renamed-{name}"]) == content(row) for name, row in before.items())


def test_an_index_of_several_blocks_finds_all(
    tmp_path: Path, job: JobConfig, one_worker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hash_index, "BLOCK", 4)
    photos = write_photographs(tmp_path / "photos", 14)
    job = replace(job, scheduler=one_worker, partition_size=3)
    assert run_job(job).reused == 0
    rename(photos)
    write_photographs(tmp_path / "photos" / "y", 20)
    write_photographs(tmp_path / "photos" / "z", 20)
    report = run_job(job)
    assert (report.captioned, report.reused) == (54, 48)


def test_a_run_without_work_writes_no_index(
    tmp_path: Path, job: JobConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_photographs(tmp_path / "photos", 3)
    run_job(job)
    monkeypatch.delattr("captioner.jobs.run.index_table")
    assert run_job(job).planned == 0
