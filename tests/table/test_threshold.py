"""Runs that mark captions for review, by a given threshold or one from the calibration."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from captioner.jobs import JobConfig, run_job
from captioner.jobs.cli.main import main
from captioner.jobs.cli.text import status_text
from captioner.jobs.errors import UsageError
from captioner.jobs.execution.tasks.task import Task
from captioner.jobs.execution.worker.worker import committed_result
from captioner.jobs.pipeline.settings import WorkerSettings
from captioner.jobs.publish.marking import mark_table
from captioner.jobs.rows.decided import read_rows, row_schema
from captioner.jobs.storage.backends.paths import out_path
from captioner.jobs.table.compaction.compact import compact
from captioner.jobs.table.layout import OutFolder, RunFolder
from captioner.jobs.table.status import read_status
from captioner.jobs.table.threshold import Threshold, needs_review
from captioner.jobs.table.writer import Writer
from captioner.options import CaptionerOptions
from captioner.schemas.job_report import JobReport
from tests.support.photographs import write_photographs
from tests.support.rows import decide, row, write_rows
from tests.support.tables import read_table

COUNT = 12


@pytest.fixture
def job(tmp_path: Path, scheduler: str, calibrated_checkpoint: Path) -> JobConfig:
    """Return a job that captions tmp_path/photos, with one unreadable file, into tmp_path/out."""
    photos = write_photographs(tmp_path / "photos", COUNT)
    (photos / "empty.jpg").touch()
    return JobConfig(
        source=photos,
        out=tmp_path / "out",
        checkpoint=calibrated_checkpoint,
        scheduler=scheduler,
        device="cpu",
        quiet=True,
    )


def flags(job: JobConfig) -> list[str]:
    """Return the command line of a job."""
    places = {"out": job.out, "checkpoint": job.checkpoint, "scheduler": job.scheduler}
    options = [text for name, value in places.items() for text in (f"--{name}", str(value))]
    return ["run", str(job.source), *options]


def marks(out: Path) -> dict[str, bool | None]:
    rows = read_table(out).to_pylist()
    return {Path(row["image_uri"]).name: row["needs_review"] for row in rows}


def review_metadata(out: Path) -> Any:
    (path,) = (out / "captions").iterdir()
    return json.loads(pq.read_schema(path).metadata[b"review"])


def test_captions_below_the_confidence_given_are_marked_and_counted(
    tmp_path: Path, job: JobConfig
) -> None:
    report = run_job(replace(job, min_confidence=0.5))
    assert_marked(tmp_path / "out", 0.5)
    marked = list(marks(tmp_path / "out").values()).count(True)
    assert 0 < marked < COUNT
    assert (report.captioned, report.needs_review) == (COUNT, marked)
    assert (report.min_confidence, report.target_precision) == (0.5, None)
    recorded = review_metadata(tmp_path / "out")
    assert recorded.pop("since") < report.finished_at.isoformat()
    assert recorded == {"min_confidence": 0.5, "target_precision": None, "expected_coverage": None}


def test_the_status_counts_the_captions_to_review(
    job: JobConfig,
) -> None:
    run_job(job)
    assert "to review" not in status_text(read_status(job.out))
    write_photographs(Path(job.source), COUNT + 6)
    report = run_job(replace(job, min_confidence=0.5))
    status = read_status(job.out)
    assert (status.judged, status.min_confidence) == (COUNT + 6, 0.5)
    assert status.needs_review > (report.needs_review or 0) > 0
    line = f"\nto review  {status.needs_review} (confidence below 0.5)\n"
    assert line in status_text(status)


def test_a_part_committed_by_a_worker_that_died_counts_with_its_marks(
    tmp_path: Path, job: JobConfig
) -> None:
    report = run_job(replace(job, min_confidence=0.5))
    run = RunFolder(OutFolder(tmp_path / "out"), report.run_id)
    settings = WorkerSettings(CaptionerOptions(str(job.checkpoint), "cpu"), 1000)
    result = committed_result(Task(run, settings, partition=0, size=13, start=0, stop=13))
    assert result is not None
    assert (result.statuses, result.needs_review) == (report.statuses, report.needs_review)


def test_without_a_threshold_nothing_is_judged(tmp_path: Path, job: JobConfig) -> None:
    report = run_job(job)
    assert set(marks(tmp_path / "out").values()) == {None}
    assert (report.min_confidence, report.needs_review) == (None, None)
    assert review_metadata(tmp_path / "out") is None


def test_a_target_precision_takes_its_threshold_from_the_calibration_and_states_the_coverage(
    tmp_path: Path, job: JobConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*flags(job), "--target-precision", "0.8"]) == 0
    printed = capsys.readouterr()
    assert printed.err.startswith(
        "captioner: confidence of at least 0.5 for a precision of 0.8 "
        "(on the calibration's images: 23% of the captions)\n"
    )
    (path,) = (tmp_path / "out").glob("runs/*/report.json")
    report = JobReport.from_json(path.read_text())
    assert (report.min_confidence, report.target_precision) == (0.5, 0.8)
    assert (
        report.expected_coverage == review_metadata(tmp_path / "out")["expected_coverage"] == 0.23
    )
    marked = list(marks(tmp_path / "out").values()).count(True)
    assert report.needs_review == marked > 0
    share = f"{marked} ({marked / COUNT:.1%} of the captions: confidence below 0.5)"
    assert f"\nto review  {share}\n" in printed.out


def test_a_precision_out_of_reach_is_refused_with_the_best_one_known(
    tmp_path: Path, job: JobConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*flags(job), "--target-precision", "0.95"]) == 2
    assert "precision of 0.95: the best known is 0.900" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("flag", ["--min-confidence", "--target-precision"])
def test_a_model_without_calibration_marks_nothing(
    tmp_path: Path,
    job: JobConfig,
    tiny_checkpoint: Path,
    flag: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([*flags(replace(job, checkpoint=tiny_checkpoint)), flag, "0.5"]) == 2
    assert f"{tiny_checkpoint} has no calibration.json" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_run_with_another_threshold_marks_the_whole_table_by_it(
    tmp_path: Path, job: JobConfig
) -> None:
    out = tmp_path / "out"
    run_job(job)
    unmarked = read_table(out).drop_columns("needs_review")
    report = run_job(replace(job, min_confidence=0.5))
    assert (report.images, report.remarked) == (0, COUNT + 1)
    assert set(marks(out).values()) == {True, False, None}
    write_photographs(tmp_path / "photos", COUNT + 1)
    report = run_job(job)  # it need not be given again
    assert (report.images, report.remarked, report.min_confidence) == (1, 0, 0.5)
    assert_marked(out, 0.5)
    run_job(replace(job, min_confidence=0.25))
    assert_marked(out, 0.25)
    assert (
        read_table(out)
        .drop_columns("needs_review")
        .slice(0, COUNT)
        .equals(unmarked.slice(0, COUNT))
    )


def assert_marked(out: Path, threshold: float) -> None:
    for each in read_table(out).to_pylist():
        expected = each["confidence"] < threshold if each["status"] == "ok" else None
        assert each["needs_review"] is expected
    assert read_status(out).min_confidence == threshold
    assert read_status(out).needs_review == list(marks(out).values()).count(True)


def test_a_threshold_is_changed_without_captioning_anything(tmp_path: Path, job: JobConfig) -> None:
    out = tmp_path / "out"
    run_job(replace(job, partition_size=3))
    done = mark_table(out, min_confidence=0.4)
    assert (done.rows, done.threshold.min_confidence) == (COUNT + 1, 0.4)
    assert_marked(out, 0.4)
    assert mark_table(out, min_confidence=0.4).rows == 0
    assert mark_table(out, target_precision=0.8).threshold.expected_coverage == 0.23
    assert_marked(out, 0.5)
    mark_table(out)
    assert set(marks(out).values()) == {None}
    assert read_status(out).min_confidence is None
    with pytest.raises(UsageError, match=r"the best known is 0\.900"):
        mark_table(out, target_precision=0.95)
    assert not list((out / "runs").glob("*/scratch"))


def test_a_table_without_calibration_has_no_threshold_for_a_precision(tmp_path: Path) -> None:
    write_rows(tmp_path, [row("/a.jpg")])
    with pytest.raises(UsageError, match="give a confidence instead"):
        mark_table(tmp_path, target_precision=0.5)
    with pytest.raises(UsageError, match="holds no caption table"):
        mark_table(tmp_path / "nothing", min_confidence=0.5)


def test_marking_that_was_killed_is_finished_by_the_next_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(6):
        write_rows(tmp_path, [row(f"/{number}.jpg", confidence=number / 10)], str(number))
    mark_table(tmp_path, min_confidence=0.35)
    written = []

    def dies(self: Writer, tables: object, schema: pa.Schema, path: Path) -> int:
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(path)
        return write(self, tables, schema, path)  # type: ignore[arg-type]

    write = Writer.write
    with monkeypatch.context() as patch:
        patch.setattr(Writer, "write", dies)
        with pytest.raises(KeyboardInterrupt):
            mark_table(tmp_path, min_confidence=0.15)
    assert list(marks(tmp_path).values()).count(True) > 2  # some by the former threshold
    status = read_status(tmp_path)
    assert (status.min_confidence, status.needs_review) == (0.15, 2)
    out = OutFolder(out_path(tmp_path))
    shown = [row for table in read_rows(out, row_schema(out)) for row in table.to_pylist()]
    assert [each["needs_review"] for each in shown] == [True, True, *[False] * 4]
    compact(tmp_path, quiet=True)
    assert_marked(tmp_path, 0.15)
    assert not out.new_threshold.exists()


def test_a_confidence_is_as_precise_as_the_table(tmp_path: Path) -> None:
    write_rows(tmp_path, [row("/a.jpg", confidence=0.7)])
    mark_table(tmp_path, min_confidence=0.7)
    assert needs_review(row("/a.jpg", confidence=0.7), Threshold(0.7)) is False
    assert list(marks(tmp_path).values()) == [False]


def test_what_people_decided_needs_no_review(tmp_path: Path) -> None:
    out = write_rows(tmp_path, [row(f"/{name}.jpg") for name in "abcd"])
    mark_table(tmp_path, min_confidence=0.9)
    decide(out, "/a.jpg", "accepted", "A picture of a.")
    decide(out, "/b.jpg", "rejected")
    decide(out, "/c.jpg", "edited", "A cat.", image_sha256="another")
    decide(out, "/gone.jpg", "edited", "A cat.")
    status = read_status(tmp_path)
    assert (status.judged, status.needs_review) == (4, 2)
    assert status.decisions == {"accepted": 1, "rejected": 1, "edited": 1}
    text = status_text(status)
    assert "\nto review  2 (confidence below 0.9)\n" in text
    assert "\ndecided    3 (1 accepted, 1 rejected, 1 edited)\n" in text


def test_a_run_extends_a_table_of_the_first_schema(tmp_path: Path, job: JobConfig) -> None:
    run_job(job)
    (path,) = (tmp_path / "out" / "captions").iterdir()
    first = pq.read_table(path).drop_columns("needs_review")
    pq.write_table(first.replace_schema_metadata({"schema_version": "1"}), path)
    write_photographs(tmp_path / "photos", COUNT + 1)
    report = run_job(replace(job, min_confidence=0.5))
    assert (report.already_there, report.images, report.remarked) == (COUNT + 1, 1, COUNT + 1)
    old, new = sorted((tmp_path / "out" / "captions").iterdir())
    for path in (old, new):
        assert ds.dataset(path).to_table().drop_columns("needs_review").schema.equals(first.schema)
    assert_marked(tmp_path / "out", 0.5)


def test_a_foreign_file_in_the_table_is_named(tmp_path: Path) -> None:
    write_rows(tmp_path, [row("/a.jpg")])
    pq.write_table(pa.table({"x": [1]}), tmp_path / "captions" / "foreign.parquet")
    with pytest.raises(UsageError, match=r"foreign\.parquet is not a file of a caption table"):
        read_status(tmp_path)
