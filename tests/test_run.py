"""Runs on a running cluster: what becomes of each image, and of failures."""

import json
import re
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from captioner.jobs import JobConfig, run_job
from captioner.jobs.cli.main import main
from captioner.jobs.errors import JobError, TemporaryError, UsageError
from captioner.jobs.execution.record.recorder import Recorder
from captioner.jobs.preview import preview_job
from captioner.precision import precision_of
from captioner.schemas.job_report import JobReport
from tests.support.photographs import photograph, write_photographs
from tests.support.tables import image_names, read_table, statuses


def events(out: Path) -> list[dict[str, Any]]:
    (path,) = out.glob("runs/*/events.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_image_gets_one_row_with_all_its_values(tmp_path: Path, job: JobConfig) -> None:
    write_photographs(tmp_path / "photos", 20)
    report = run_job(job)
    table = read_table(tmp_path / "out")
    assert (report.exit_code, report.images, report.captioned) == (0, 20, 20)
    assert image_names(tmp_path / "out") == [f"{n:03d}.jpg" for n in range(20)]
    row = table.to_pylist()[0]
    assert (row["width"], row["height"], row["format"], row["status"]) == (80, 60, "JPEG", "ok")
    assert row["caption"] and row["error"] is None
    assert row["log_prob"] == pytest.approx(sum(row["token_log_probs"]), abs=1e-4)
    assert row["alternatives"][0].keys() == {"caption", "log_prob"}
    assert row["captioner"] == report.captioner
    assert report.precision == precision_of(job.captioner)
    assert row["run_id"] == report.run_id
    assert row["image_version"].endswith(f"-{len(photograph(0))}")


def test_a_run_leaves_the_table_and_its_records_and_nothing_else(
    tmp_path: Path, job: JobConfig
) -> None:
    write_photographs(tmp_path / "photos", 3)
    report = run_job(job)
    out = tmp_path / "out"
    assert {path.suffix for path in (out / "captions").iterdir()} == {".parquet"}
    records = {path.name for path in (out / "runs" / report.run_id).iterdir()}
    assert records == {"job.toml", "report.json", "report.html", "events.jsonl"}
    saved = (out / "runs" / report.run_id / "report.json").read_text()
    assert JobReport.from_json(saved) == report
    assert set(report.seconds) == {"fetch", "decode", "encode", "search", "commit"}


def test_the_files_say_who_made_the_captions_and_how(tmp_path: Path, job: JobConfig) -> None:
    write_photographs(tmp_path / "photos", 1)
    run_job(replace(job, beam_size=2, max_characters=40))
    (path,) = (tmp_path / "out" / "captions").iterdir()
    metadata = pq.read_schema(path).metadata
    (settings,) = json.loads(metadata[b"captioners"]).values()
    search = settings["search"]
    assert (search["beam_size"], search["max_characters"]) == (2, 40)
    assert settings.keys() == {"search", "calibration", "precision", "pipeline_version"}
    assert b"schema_version" in metadata


def test_no_caption_is_longer_than_the_command_allows(
    tmp_path: Path, job: JobConfig, calibrated_checkpoint: Path
) -> None:
    write_photographs(tmp_path / "photos", 8)
    job = replace(job, checkpoint=calibrated_checkpoint)
    run_job(job)
    free = [len(caption) for caption in read_table(tmp_path / "out")["caption"].to_pylist()]
    job_file = tmp_path / "job.toml"
    job_file.write_text(replace(job, max_characters=30, out=tmp_path / "short").to_toml())
    assert main(["run", "--config", str(job_file)]) == 0
    short = [len(caption) for caption in read_table(tmp_path / "short")["caption"].to_pylist()]
    flags = ["--max-characters", "22", "--out", str(tmp_path / "shorter")]
    assert main(["run", "--config", str(job_file), *flags]) == 0
    shorter = [len(caption) for caption in read_table(tmp_path / "shorter")["caption"].to_pylist()]
    assert max(free) > 30 >= max(short) > 22 >= max(shorter)


def test_images_that_cannot_be_read_get_a_row_that_says_why(tmp_path: Path, job: JobConfig) -> None:
    photos = write_photographs(tmp_path / "photos", 1)
    (photos / "empty.jpg").touch()
    (photos / "text.jpg").write_text("no image")
    (photos / "torn.jpg").write_bytes(photograph(1)[:-200])
    (photos / "large.jpg").write_bytes(bytes(20_000))
    manifest = tmp_path / "list.csv"
    names = ["000.jpg", "empty.jpg", "text.jpg", "torn.jpg", "large.jpg", "missing.jpg"]
    lines = [f"photos/{name},{number}" for number, name in enumerate(names)]
    manifest.write_text("\n".join(["image_uri,number", *lines]))
    report = run_job(replace(job, source=manifest, max_bytes=10_000))
    rows = {Path(row["image_uri"]).name: row for row in read_table(tmp_path / "out").to_pylist()}
    assert {name: rows[name]["status"] for name in names} == {
        "000.jpg": "ok",
        "empty.jpg": "unreadable",
        "text.jpg": "unreadable",
        "torn.jpg": "unreadable",
        "large.jpg": "too_large",
        "missing.jpg": "not_found",
    }
    assert [rows[name]["number"] for name in names] == [str(n) for n in range(6)]
    assert all(rows[name]["error"] and rows[name]["caption"] is None for name in names[1:])
    assert rows["text.jpg"]["image_sha256"] and rows["missing.jpg"]["image_sha256"] is None
    assert (report.exit_code, report.failed) == (0, 5)


def test_the_exit_code_follows_the_failures_accepted(tmp_path: Path, job: JobConfig) -> None:
    photos = write_photographs(tmp_path / "photos", 2)
    (photos / "empty.jpg").touch()
    (photos / "text.jpg").write_text("no image")
    codes = {
        limit: run_job(replace(job, out=tmp_path / f"out {limit}", max_failures=limit)).exit_code
        for limit in (None, "1", "2", "49%", "50%")
    }
    assert codes == {None: 0, "1": 3, "2": 0, "49%": 3, "50%": 0}


def test_a_run_in_which_every_image_failed_is_no_success(tmp_path: Path, job: JobConfig) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "empty.jpg").touch()
    assert run_job(job).exit_code == 3
    assert run_job(job).exit_code == 0  # it has its row: there is nothing to do


def test_only_new_images_are_the_work_of_the_next_run(tmp_path: Path, job: JobConfig) -> None:
    write_photographs(tmp_path / "photos", 5)
    first = run_job(job)
    before = read_table(tmp_path / "out")
    assert run_job(job).images == 0
    write_photographs(tmp_path / "photos", 8)
    report = run_job(job)
    assert (report.listed, report.already_there, report.images) == (8, 5, 3)
    table = read_table(tmp_path / "out")
    assert image_names(tmp_path / "out") == [f"{n:03d}.jpg" for n in range(8)]
    assert table.slice(0, 5).equals(before)
    assert set(table["run_id"].to_pylist()) == {first.run_id, report.run_id}


def test_an_image_has_the_same_caption_whatever_batch_and_partition_it_is_in(
    tmp_path: Path, job: JobConfig
) -> None:
    write_photographs(tmp_path / "photos", 30)
    captions = []
    for batch_size, partition_size in [(1, 30), (7, 4), (32, 13)]:
        out = tmp_path / f"out {batch_size}"
        run_job(replace(job, out=out, batch_size=batch_size, partition_size=partition_size))
        captions.append(read_table(out)["caption"].to_pylist())
    assert captions[0] == captions[1] == captions[2]
    assert len(set(captions[0])) > 10


def test_an_image_that_kills_its_process_costs_its_own_row_only(
    tmp_path: Path, job: JobConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("captioner.jobs.execution.tasks.death.MOST_KILLED", 3)
    photos = write_photographs(tmp_path / "photos", 8)
    (photos / "002.jpg").write_bytes(b"KILL")
    report = run_job(replace(job, partition_size=4))
    out = tmp_path / "out"
    assert image_names(out) == [f"{n:03d}.jpg" for n in range(8)]
    assert statuses(out) == report.statuses == {"ok": 7, "crashed": 1}
    row = read_table(out).to_pylist()[2]
    assert row["status"] == "crashed" and "died" in row["error"]
    failed = [event["images"] for event in events(out) if event["event"] == "failed"]
    assert failed == [4, 1, 1, 1]  # the partition, and the image alone, three times


def test_an_image_that_breaks_the_captioner_costs_its_own_row_only(
    tmp_path: Path, job: JobConfig
) -> None:
    photos = write_photographs(tmp_path / "photos", 20)
    (photos / "003.jpg").write_bytes(b"ODD!")
    run_job(job)
    out = tmp_path / "out"
    assert image_names(out) == [f"{n:03d}.jpg" for n in range(20)]
    assert statuses(out) == {"ok": 19, "crashed": 1}
    assert read_table(out)["error"].to_pylist()[3] == "sitecustomize.OddError: odd image"
    failed = [event for event in events(out) if event["event"] == "failed"]
    assert "Traceback" in failed[0]["error"]


def test_a_run_in_which_nothing_works_gives_up(tmp_path: Path, job: JobConfig) -> None:
    write_photographs(tmp_path / "photos", 40, harm=b"ODD!")
    with pytest.raises(JobError, match=r"failed one by one, and none succeeded: .*OddError"):
        run_job(job)
    assert not list((tmp_path / "out" / "captions").iterdir())  # the next run tries them again


def test_an_out_that_cannot_hold_a_table_is_an_error_of_the_user(
    tmp_path: Path, job: JobConfig
) -> None:
    write_photographs(tmp_path / "photos", 1)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "captions").touch()
    with pytest.raises(UsageError, match="cannot write to"):
        run_job(job)


def test_a_table_that_can_no_longer_be_written_ends_the_run(tmp_path: Path, job: JobConfig) -> None:
    write_photographs(tmp_path / "photos", 40, harm=b"SLOW")
    captions = tmp_path / "out" / "captions"
    events = tmp_path / "out" / "runs"

    def remove_table() -> None:
        while not list(events.glob("*/scratch/*.started")):
            time.sleep(0.01)
        captions.rename(tmp_path / "elsewhere")

    with ThreadPoolExecutor() as pool:
        pool.submit(remove_table)
        with pytest.raises(JobError, match=r"cannot write to .*out: "):
            run_job(job)


def test_a_checkpoint_that_is_not_there_is_an_error_of_the_user(
    tmp_path: Path, job: JobConfig
) -> None:
    write_photographs(tmp_path / "photos", 3)
    with pytest.raises(UsageError, match="no checkpoint 'none'"):
        run_job(replace(job, checkpoint="none"))
    (report,) = (tmp_path / "out").glob("runs/*/report.json")
    assert JobReport.from_json(report.read_text()).exit_code == 2


def test_a_precision_that_this_cpu_lacks_is_refused_before_the_run(
    tmp_path: Path, job: JobConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpuinfo").write_text("flags : avx512_bf16\n")
    monkeypatch.setattr("captioner.precision.CPU_INFO", tmp_path / "cpuinfo")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    write_photographs(tmp_path / "photos", 1)
    for device in ("auto", "cpu"):
        local = replace(job, scheduler=None, precision="float16", device=device)
        for start in (run_job, preview_job):
            with pytest.raises(UsageError, match="no instructions for float16"):
                start(local)
    assert not (tmp_path / "out").exists()


def test_a_scheduler_that_does_not_answer_is_a_temporary_error(
    tmp_path: Path, job: JobConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("captioner.jobs.execution.cluster.scheduler.CONNECT_SECONDS", 1)
    write_photographs(tmp_path / "photos", 1)
    with pytest.raises(TemporaryError, match="no Dask scheduler answers at"):
        run_job(replace(job, scheduler="tcp://127.0.0.1:9"))


def test_progress_counts_images_and_the_failures_so_far(
    tmp_path: Path,
    job: JobConfig,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    photos = write_photographs(tmp_path / "photos", 3)
    (photos / "empty.jpg").touch()
    run_job(job)
    assert capsys.readouterr().err == ""  # quiet
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    run_job(replace(job, quiet=False, out=tmp_path / "other"))
    errors = capsys.readouterr().err
    assert "captioner: Dask's dashboard is at http://" in errors
    assert "is not encrypted" in errors
    assert re.search(r"100%\|█+\| 4 of 4 images.*, 1 failed", errors)


def test_without_a_terminal_progress_is_a_line_now_and_then(
    tmp_path: Path,
    job: JobConfig,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_photographs(tmp_path / "photos", 3)
    progress = "captioner.jobs.execution.record.progress"
    monkeypatch.setattr(f"{progress}.FIRST_LINE_SECONDS", 1000)
    run_job(replace(job, quiet=False))
    assert "of 3 images" not in capsys.readouterr().err
    monkeypatch.setattr(f"{progress}.FIRST_LINE_SECONDS", 0)
    monkeypatch.setattr(f"{progress}.LINE_SECONDS", 0)
    run_job(replace(job, quiet=False, out=tmp_path / "other"))
    *_, last = capsys.readouterr().err.splitlines()
    assert last.startswith("captioner: 3 of 3 images")


def test_progress_moves_by_batches(
    tmp_path: Path, job: JobConfig, one_worker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("captioner.jobs.execution.worker.batches.SECONDS", 0)
    moments: list[int] = []
    report = Recorder.report

    def spy(recorder: Recorder, key: str, done: int) -> None:
        report(recorder, key, done)
        moments.append(recorder.moment().images)

    monkeypatch.setattr(Recorder, "report", spy)
    write_photographs(tmp_path / "photos", 20)
    run_job(replace(job, scheduler=one_worker))
    assert moments == [0, 8, 16, 20]


def test_a_small_job_is_divided_among_all_workers(tmp_path: Path, job: JobConfig) -> None:
    write_photographs(tmp_path / "photos", 40)
    report = run_job(job)
    assert (report.partitions, report.captioned) == (4, 40)
    assert image_names(tmp_path / "out") == [f"{n:03d}.jpg" for n in range(40)]


def test_the_speed_without_the_start_is_known(tmp_path: Path, job: JobConfig) -> None:
    write_photographs(tmp_path / "photos", 5)
    report = run_job(job)
    assert report.captioning_seconds is not None
    took = (report.finished_at - report.started_at).total_seconds()
    assert 0 < report.captioning_seconds < took
    assert run_job(job).captioning_seconds is None


def test_events_say_how_long_each_stage_of_a_partition_took(tmp_path: Path, job: JobConfig) -> None:
    write_photographs(tmp_path / "photos", 5)
    report = run_job(job)
    (event,) = events(tmp_path / "out")
    assert event["event"] == "committed"
    assert event["seconds"] == report.seconds
    assert event["took"] >= event["seconds"]["encode"] + event["seconds"]["search"]


def test_the_report_has_the_surest_captions_and_the_first_failure_of_each_kind(
    tmp_path: Path, job: JobConfig, calibrated_checkpoint: Path
) -> None:
    photos = write_photographs(tmp_path / "photos", 30)
    for name in ("empty.jpg", "torn.jpg"):
        (photos / name).write_bytes(b"")
    (photos / "large.jpg").write_bytes(bytes(20_000))
    report = run_job(replace(job, checkpoint=calibrated_checkpoint, max_bytes=10_000))
    rows = [row for row in read_table(tmp_path / "out").to_pylist() if row["status"] == "ok"]
    confidences = sorted(row["confidence"] for row in rows)
    least, most = confidences[:3], confidences[:-4:-1]
    assert [each["confidence"] for each in report.least_sure] == pytest.approx(least, abs=1e-4)
    assert [each["confidence"] for each in report.surest] == pytest.approx(most, abs=1e-4)
    captions = {row["image_uri"]: row["caption"] for row in rows}
    for each in (*report.surest, *report.least_sure):
        assert captions[each["image_uri"]] == each["caption"]
    assert report.first_failures.keys() == {"unreadable", "too_large"}
    assert Path(report.first_failures["too_large"]["image_uri"]).name == "large.jpg"
    assert report.first_failures["unreadable"]["error"] == "empty file"
