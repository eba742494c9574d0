"""Later runs on the same table: new, changed, stale, failed and vanished images."""

import hashlib
import json
import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from captioner.jobs import JobConfig, run_job
from captioner.jobs.cli.text import summary
from captioner.jobs.errors import UsageError
from captioner.jobs.table import replace as replace_module
from captioner.jobs.table.layout import OutFolder
from tests.support.photographs import photograph, write_photographs
from tests.support.servers import HttpServer
from tests.support.tables import image_names, read_table, statuses


@pytest.fixture
def job(job: JobConfig) -> JobConfig:
    """Return a job that captions eight photographs, in partitions of three."""
    write_photographs(Path(job.source), 8)
    return replace(job, partition_size=3)


def rows(job: JobConfig) -> dict[str, dict[str, object]]:
    """Return the rows of the table by file name; each image has exactly one."""
    table = read_table(Path(job.out)).to_pylist()
    by_name = {Path(row["image_uri"]).name: row for row in table}
    assert len(by_name) == len(table)
    return by_name


def change(job: JobConfig, name: str, content: bytes) -> None:
    (Path(job.source) / name).write_bytes(content)


def test_a_changed_image_gets_a_new_row_in_place_of_the_old_one(job: JobConfig) -> None:
    first = run_job(job)
    before = rows(job)
    change(job, "003.jpg", photograph(20))
    change(job, "007.jpg", photograph(21))
    second = run_job(job)
    after = rows(job)
    assert (second.changed, second.new, second.already_there, second.images) == (2, 0, 6, 2)
    changed = {name for name in after if after[name]["run_id"] == second.run_id}
    assert changed == {"003.jpg", "007.jpg"}
    assert all(after[name] == before[name] for name in after.keys() - changed)
    assert after["003.jpg"]["image_sha256"] != before["003.jpg"]["image_sha256"]
    assert run_job(job).planned == 0
    assert first.run_id != second.run_id


def test_one_run_captions_both_new_and_changed_images(job: JobConfig) -> None:
    run_job(job)
    change(job, "000.jpg", b"no image any more")
    write_photographs(Path(job.source), 12)
    report = run_job(job)
    assert (report.new, report.changed, report.images) == (4, 1, 5)
    assert len(rows(job)) == 12
    assert statuses(Path(job.out)) == {"ok": 11, "unreadable": 1}


def test_a_reader_sees_each_row_once_at_any_time(job: JobConfig) -> None:
    run_job(job)
    for number in range(8):
        change(job, f"{number:03d}.jpg", photograph(30 + number))
    ended = threading.Event()

    def read() -> set[tuple[int, int]]:
        seen = set()
        while not ended.is_set():
            names = image_names(Path(job.out))
            seen.add((len(names), len(set(names))))
        return seen

    with ThreadPoolExecutor() as pool:
        reader = pool.submit(read)
        try:
            assert run_job(job).changed == 8
        finally:
            ended.set()
        assert reader.result() == {(8, 8)}


def test_rows_of_another_captioner_are_kept_or_redone(
    job: JobConfig, calibrated_checkpoint: Path
) -> None:
    run_job(job)
    other = replace(job, checkpoint=calibrated_checkpoint)
    kept = run_job(other)
    assert (kept.kept_stale, kept.planned) == (8, 0)
    assert "8 rows by another model, setting or precision; --stale redo" in summary(kept)
    redone = run_job(replace(other, stale="redo"))
    assert (redone.stale, redone.images) == (8, 8)
    assert {row["captioner"] for row in rows(job).values()} == {redone.captioner}
    again = run_job(replace(other, stale="redo"))
    assert (again.kept_stale, again.planned) == (0, 0)
    assert "by another" not in summary(again)


def test_a_file_with_rows_of_two_captioners_records_both(
    job: JobConfig, calibrated_checkpoint: Path
) -> None:
    run_job(replace(job, partition_size=8))
    change(job, "000.jpg", photograph(20))
    run_job(replace(job, checkpoint=calibrated_checkpoint, min_confidence=0.5))
    (path,) = (Path(job.out) / "captions").iterdir()
    file = pq.ParquetFile(path)
    captioners = set(file.read(["captioner"])["captioner"].to_pylist())
    metadata = file.schema_arrow.metadata
    assert set(json.loads(metadata[b"captioners"])) == captioners and len(captioners) == 2
    assert json.loads(metadata[b"review"])["min_confidence"] == 0.5


def test_failures_are_retried_on_demand(job: JobConfig) -> None:
    missing = Path(job.source) / "missing.jpg"
    missing.symlink_to("nowhere.jpg")
    change(job, "torn.jpg", b"")
    run_job(job)
    assert statuses(Path(job.out)) == {"ok": 8, "not_found": 1, "unreadable": 1}
    assert run_job(job).planned == 0
    report = run_job(replace(job, retry_failed=[]))
    assert (report.retried, report.statuses) == (1, {"not_found": 1})
    report = run_job(replace(job, retry_failed=["unreadable", "not_found"]))
    assert (report.retried, report.images) == (2, 2)
    (Path(job.source) / "nowhere.jpg").write_bytes(photograph(9))
    report = run_job(job)  # it has a version now
    assert (report.changed, report.new) == (1, 1)
    assert statuses(Path(job.out)) == {"ok": 10, "unreadable": 1}


def test_a_failure_does_not_replace_a_caption_of_the_same_image(
    job: JobConfig, tmp_path: Path, calibrated_checkpoint: Path
) -> None:
    manifest = tmp_path / "list.txt"
    manifest.write_text("memory://gone/000.jpg\nphotos/001.jpg\n")
    job = replace(job, source=manifest)
    run_job(job)
    out = OutFolder(tmp_path / "out")
    (path,) = out.table_files()
    table = pq.read_table(path)
    ok = pa.array(["ok", "ok"]).dictionary_encode()
    table = table.set_column(table.schema.get_field_index("status"), "status", ok)
    pq.write_table(table, path)  # as if it had been readable
    report = run_job(replace(job, checkpoint=calibrated_checkpoint, stale="redo"))
    assert (report.stale, report.failed) == (2, 1)
    captioners = [row["captioner"] for row in table.to_pylist()]
    row = rows(job)["000.jpg"]
    assert (row["status"], row["captioner"]) == ("ok", captioners[0])
    assert rows(job)["001.jpg"]["captioner"] == report.captioner


def test_an_image_without_a_version_in_its_source_has_its_hash_as_version(
    job: JobConfig, http_server: HttpServer, tmp_path: Path, calibrated_checkpoint: Path
) -> None:
    (http_server.folder / "0.jpg").write_bytes(photograph(0))
    manifest = tmp_path / "list.txt"
    manifest.write_text(f"{http_server.url}/0.jpg\n")
    job = replace(job, source=manifest, allow_host=["127.0.0.1"])
    first = run_job(job)
    row = rows(job)["0.jpg"]
    assert row["image_version"] == f"sha256-{hashlib.sha256(photograph(0)).hexdigest()}"
    assert run_job(job).planned == 0
    (http_server.folder / "0.jpg").unlink()
    redone = run_job(replace(job, checkpoint=calibrated_checkpoint, stale="redo"))
    assert (redone.stale, redone.statuses) == (1, {"not_found": 1})
    assert rows(job)["0.jpg"]["run_id"] == first.run_id


def test_vanished_images_are_reported_and_removed_only_on_demand(job: JobConfig) -> None:
    run_job(job)
    (Path(job.source) / "002.jpg").unlink()
    (Path(job.source) / "005.jpg").unlink()
    report = run_job(job)
    assert (report.vanished, report.pruned, len(rows(job))) == (2, 0, 8)
    report = run_job(replace(job, prune=True))
    assert (report.vanished, report.pruned) == (2, 2)
    assert sorted(rows(job)) == [f"{n:03d}.jpg" for n in (0, 1, 3, 4, 6, 7)]
    assert run_job(job).vanished == 0


def test_more_rows_are_pruned_than_are_in_memory_at_once(
    job: JobConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replace_module, "PRUNED_ROWS", 2)
    job = replace(job, partition_size=1)
    run_job(job)
    for number in (0, 1, 3, 4, 6):
        (Path(job.source) / f"{number:03d}.jpg").unlink()
    assert run_job(replace(job, prune=True)).pruned == 5
    assert sorted(rows(job)) == ["002.jpg", "005.jpg", "007.jpg"]


def test_a_file_of_the_table_that_loses_all_its_rows_is_removed(job: JobConfig) -> None:
    run_job(job)
    files = len(OutFolder(Path(job.out)).table_files())
    for name in ("000.jpg", "001.jpg", "002.jpg"):
        (Path(job.source) / name).unlink()
    run_job(replace(job, prune=True, partition_size=3))
    assert len(rows(job)) == 5
    assert len(OutFolder(Path(job.out)).table_files()) <= files


def test_a_run_over_a_directory_prunes_only_images_of_that_directory(
    job: JobConfig, tmp_path: Path
) -> None:
    run_job(job)
    write_photographs(tmp_path / "photos-of-others", 3)
    run_job(replace(job, source=tmp_path / "photos-of-others"))
    (Path(job.source) / "000.jpg").unlink()
    report = run_job(replace(job, prune=True))
    assert (report.vanished, report.pruned) == (1, 1)
    assert read_table(tmp_path / "out").num_rows == 10


def test_nothing_is_pruned_after_an_incomplete_listing(
    job: JobConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_photographs(Path(job.source) / "below", 2)
    run_job(job)
    scandir = os.scandir

    def denied(path: str) -> object:
        if str(path).endswith("below"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", denied)
    with pytest.raises(UsageError, match="cannot prune: 1 folder could not be read"):
        run_job(replace(job, prune=True))
    assert read_table(Path(job.out)).num_rows == 10


def test_nothing_is_pruned_by_an_empty_listing(job: JobConfig, tmp_path: Path) -> None:
    run_job(job)
    (tmp_path / "empty.csv").write_text("image_uri\n")
    empty = replace(job, source=tmp_path / "empty.csv")
    for prune in (False, True):
        with pytest.raises(UsageError, match=r"no images in .*empty\.csv"):
            run_job(replace(empty, prune=prune))
        report = run_job(replace(empty, prune=prune, empty_ok=True))
        assert (report.exit_code, report.planned, report.vanished) == (0, 0, 8)
    assert len(rows(job)) == 8


def test_the_next_run_finishes_the_replacements_of_a_killed_one(
    job: JobConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_job(job)
    for number in range(8):
        change(job, f"{number:03d}.jpg", photograph(40 + number))
    rewrite, rewritten = replace_module._rewrite, []

    def killed(path: Path, *arguments: object) -> None:
        if rewritten:
            raise SystemError("killed")
        rewritten.append(path)
        rewrite(path, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(replace_module, "_rewrite", killed)
    with pytest.raises(SystemError):
        run_job(job)
    monkeypatch.undo()
    halfway = rows(job)
    assert len(halfway) == 8
    report = run_job(job)
    assert (report.planned, report.already_there) == (0, 8)
    after = rows(job)
    for number in range(8):
        sha256 = hashlib.sha256(photograph(40 + number)).hexdigest()
        assert after[f"{number:03d}.jpg"]["image_sha256"] == sha256
    assert not list(Path(job.out).glob("runs/*/replacements"))


def test_rows_keep_the_columns_of_a_manifest_after_a_run_over_another_source(
    job: JobConfig, tmp_path: Path
) -> None:
    manifest = tmp_path / "list.csv"
    manifest.write_text("image_uri,label\nphotos/000.jpg,cat\nphotos/001.jpg,dog\n")
    run_job(replace(job, source=manifest))
    change(job, "001.jpg", photograph(20))
    report = run_job(job)
    assert (report.changed, report.new) == (1, 6)
    after = rows(job)
    assert after["001.jpg"]["run_id"] == report.run_id
    labels = [after[f"{number:03d}.jpg"].get("label") for number in range(3)]
    assert labels == ["cat", "dog", None]


def test_replacements_with_another_schema_than_their_file_are_named(
    job: JobConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_job(job)
    change(job, "000.jpg", photograph(20))
    monkeypatch.setattr(replace_module, "_rewrite", lambda *_: pa.unify_schemas([
        pa.schema([("label", pa.int64())]), pa.schema([("label", pa.string())])
    ]))  # fmt: skip
    with pytest.raises(UsageError, match=r"rows in .*/replacements do not fit .*label"):
        run_job(job)
    monkeypatch.undo()
    assert run_job(job).planned == 0


def test_the_next_run_removes_duplicate_rows(job: JobConfig) -> None:
    run_job(job)
    out = OutFolder(Path(job.out))
    part = out.table_files()[0]
    shutil.copy(part, part.with_name(f"z{part.name}"))
    assert len(image_names(Path(job.out))) > 8
    run_job(job)
    assert len(rows(job)) == 8


def test_replacements_for_a_missing_file_do_not_stop_the_next_run(
    job: JobConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_job(job)
    change(job, "000.jpg", photograph(20))
    monkeypatch.setattr(replace_module, "_rewrite", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run_job(job)
    monkeypatch.undo()
    for path in OutFolder(Path(job.out)).table_files():
        path.unlink()
    assert run_job(job).new == len(rows(job)) == 8
