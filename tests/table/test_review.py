"""Runs that mark captions for review, by a given threshold or one from the calibration."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from captioner import SearchOptions
from captioner.jobs import JobConfig, run_job
from captioner.jobs.cli.main import main
from captioner.jobs.cli.text import status_text
from captioner.jobs.errors import UsageError
from captioner.jobs.execution.task import Task
from captioner.jobs.execution.worker import committed_result
from captioner.jobs.pipeline.settings import WorkerSettings
from captioner.jobs.table.layout import OutFolder, RunFolder
from captioner.jobs.table.status import read_status
from captioner.schemas.job_report import JobReport
from tests.support.photographs import write_photographs
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
    for row in read_table(tmp_path / "out").to_pylist():
        expected = row["confidence"] < 0.5 if row["status"] == "ok" else None
        assert row["needs_review"] is expected
    marked = list(marks(tmp_path / "out").values()).count(True)
    assert 0 < marked < COUNT
    assert (report.captioned, report.needs_review) == (COUNT, marked)
    assert (report.min_confidence, report.target_precision) == (0.5, None)
    assert review_metadata(tmp_path / "out") == {
        "min_confidence": 0.5,
        "target_precision": None,
        "expected_coverage": None,
    }


def test_the_status_counts_the_captions_to_review_among_those_judged(
    job: JobConfig,
) -> None:
    run_job(job)
    assert "to review" not in status_text(read_status(job.out))
    write_photographs(Path(job.source), COUNT + 6)
    report = run_job(replace(job, min_confidence=0.5))
    status = read_status(job.out)
    assert (status.judged, status.min_confidence) == (6, 0.5)
    assert status.needs_review == report.needs_review > 0
    line = f"\nto review  {status.needs_review} (of 6 judged: confidence below 0.5)\n"
    assert line in status_text(status)


def test_a_part_committed_by_a_worker_that_died_counts_with_its_marks(
    tmp_path: Path, job: JobConfig
) -> None:
    report = run_job(replace(job, min_confidence=0.5))
    run = RunFolder(OutFolder(tmp_path / "out"), report.run_id)
    settings = WorkerSettings(str(job.checkpoint), "cpu", SearchOptions(), 32, 1000)
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
    assert printed.err == (
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


def test_a_table_has_one_threshold(tmp_path: Path, job: JobConfig) -> None:
    run_job(replace(job, min_confidence=0.5))
    before = read_table(tmp_path / "out")
    other = replace(job, min_confidence=0.25)
    with pytest.raises(UsageError, match=r"below a confidence of 0\.5, not 0\.25: use min_conf"):
        run_job(other)
    write_photographs(tmp_path / "photos", COUNT + 1)
    assert run_job(replace(job, min_confidence=0.5)).needs_review in (0, 1)
    assert marks(tmp_path / "out")[f"{COUNT:03d}.jpg"] is not None
    write_photographs(tmp_path / "photos", COUNT + 2)
    run_job(job)
    assert marks(tmp_path / "out")[f"{COUNT + 1:03d}.jpg"] is None
    with pytest.raises(UsageError, match="write to another folder"):
        run_job(other)
    assert read_table(tmp_path / "out").slice(0, COUNT).equals(before.slice(0, COUNT))


def test_a_run_extends_a_table_of_the_first_schema(tmp_path: Path, job: JobConfig) -> None:
    run_job(job)
    (path,) = (tmp_path / "out" / "captions").iterdir()
    first = pq.read_table(path).drop_columns("needs_review")
    pq.write_table(first.replace_schema_metadata({"schema_version": "1"}), path)
    write_photographs(tmp_path / "photos", COUNT + 1)
    report = run_job(replace(job, min_confidence=0.5))
    assert (report.already_there, report.images) == (COUNT + 1, 1)
    files = sorted((tmp_path / "out" / "captions").iterdir())
    new = ds.dataset(files[-1]).to_table()
    assert new["needs_review"].to_pylist() != [None]
    assert new.drop_columns("needs_review").schema.equals(first.schema)
