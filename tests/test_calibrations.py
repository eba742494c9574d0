"""Calibrations in OUT, and what second opinions make of them."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from captioner.calibration import Calibration, OperatingPoint, read_calibration, save_calibration
from captioner.caption import Caption
from captioner.confidence import confidence_beside
from captioner.jobs import JobConfig, run_job
from captioner.jobs.calibrations import keep_calibration, with_calibration
from captioner.jobs.errors import UsageError
from captioner.jobs.pipeline.settings import choose_threshold
from captioner.jobs.preview import preview_job
from captioner.loading import identify
from tests.support.photographs import write_photographs
from tests.support.tables import read_table

BESIDE = Calibration(
    *("good", "here", ["other_log_odds", "agreement"], [0.0, 0.5], [1.0, 0.5], [1.0, 1.0], 0.2),
    [OperatingPoint(0.7, 0.4, 0.95), OperatingPoint(0.0, 1.0, 0.6)],
)
BY_LENGTH = Calibration(
    *("good", "here", ["words"], [9.0], [2.0], [0.3], 0.1),
    [OperatingPoint(0.6, 0.3, 0.9), OperatingPoint(0.0, 1.0, 0.5)],
    BESIDE,
)


@pytest.fixture
def job(job: JobConfig, calibrated_checkpoint: Path) -> JobConfig:
    """Return a job that captions six photographs, with a confidence."""
    write_photographs(Path(job.source), 6)
    return replace(job, checkpoint=calibrated_checkpoint, device="cpu", partition_size=5)


@pytest.fixture
def calibration(calibrated_checkpoint: Path) -> Calibration:
    """Return the calibration of the checkpoint, with a part for second opinions."""
    alone = read_calibration(calibrated_checkpoint)
    assert alone is not None
    return replace(alone, beside=BESIDE)


@pytest.fixture
def openai() -> JobConfig:
    """Return the job of a captioner that no directory holds."""
    return JobConfig(source="photos", out="out", checkpoint="openai:some/model")


def rows(job: JobConfig) -> list[dict[str, Any]]:
    return read_table(Path(job.out)).to_pylist()


def expected(row: dict[str, Any]) -> float:
    former = row["former"]
    caption = Caption(row["caption"], 0.5)
    own = replace(BY_LENGTH, beside=BESIDE)
    confidence = confidence_beside(own, caption, former["caption"], former["confidence"])
    assert confidence is not None
    return confidence


def test_a_second_opinion_has_the_confidence_that_knows_of_the_former_caption(
    job: JobConfig, calibration: Calibration
) -> None:
    second = replace(job, beam_size=7, redo_below=1.0)
    keep_calibration(job.out, second.captioner, calibration)
    run_job(job)
    assert [row["former"] for row in rows(job)] == [None] * 6
    run_job(second)
    for row in rows(job):
        assert row["confidence"] == pytest.approx(expected(row), abs=1e-5)


def test_so_it_is_with_a_calibration_beside_the_model(
    job: JobConfig, calibration: Calibration, tmp_path: Path
) -> None:
    model = tmp_path / "second"
    shutil.copytree(job.checkpoint, model)
    save_calibration(model, calibration)
    run_job(replace(job, second={"checkpoint": str(model), "redo_below": 1.0}))
    for row in rows(job):
        assert row["captioner"].startswith("second@")
        assert row["confidence"] == pytest.approx(expected(row), abs=1e-5)


def test_copies_of_an_image_have_one_confidence(job: JobConfig, calibration: Calibration) -> None:
    second = replace(job, beam_size=7, redo_below=1.0)
    keep_calibration(job.out, second.captioner, calibration)
    run_job(job)
    run_job(second)
    for photo in Path(job.source).iterdir():
        shutil.copy(photo, photo.with_name(f"copy-{photo.name}"))
    run_job(job)
    run_job(second)
    found = rows(job)
    copies, originals = found[6:], found[:6]
    assert len(copies) == 6
    for original, copy in zip(originals, copies, strict=True):
        assert copy["former"] == original["former"]
        assert copy["confidence"] == pytest.approx(original["confidence"], abs=1e-6)


def test_a_calibration_in_out_is_part_of_the_identity(
    job: JobConfig, calibration: Calibration
) -> None:
    before = identify(job.captioner)
    run_job(job)
    keep_calibration(job.out, job.captioner, calibration)
    assert preview_job(job, sample=0).counts.kept_stale == 6
    run_job(replace(job, stale="redo"))
    assert {row["captioner"] for row in rows(job)} == {identify(with_calibration(job).captioner)}
    assert before not in {row["captioner"] for row in rows(job)}


def test_a_captioner_without_a_directory_finds_its_threshold_in_out(
    openai: JobConfig, tmp_path: Path
) -> None:
    job = replace(openai, out=tmp_path, target_precision=0.9)
    with pytest.raises(UsageError, match=r"openai:some/model has no calibration.*--calibrate"):
        choose_threshold(with_calibration(job))
    path = keep_calibration(tmp_path, job.captioner, BY_LENGTH)
    assert Path(path).parent == tmp_path / "calibrations"
    threshold = choose_threshold(with_calibration(job))
    assert threshold and (threshold.min_confidence, threshold.expected_coverage) == (0.6, 0.3)


def test_second_opinions_have_a_threshold_of_their_own(openai: JobConfig, tmp_path: Path) -> None:
    job = replace(openai, out=tmp_path, target_precision=0.95, redo_below=0.5)
    keep_calibration(tmp_path, job.captioner, BY_LENGTH)
    threshold = choose_threshold(with_calibration(job))
    assert threshold and threshold.min_confidence == 0.7


def test_a_calibration_is_of_one_captioner_with_its_settings(
    openai: JobConfig, tmp_path: Path
) -> None:
    job = replace(openai, out=tmp_path)
    assert with_calibration(job) == job
    keep_calibration(tmp_path, job.captioner, BY_LENGTH)
    assert with_calibration(job).captioner.calibration == BY_LENGTH.to_json()
    for other in ({"prompt": "What is this?"}, {"checkpoint": "openai:other"}, {"language": "de"}):
        assert with_calibration(replace(job, **other)).calibration is None


def test_a_damaged_calibration_in_out_is_named(openai: JobConfig, tmp_path: Path) -> None:
    job = replace(openai, out=tmp_path)
    path = Path(str(keep_calibration(tmp_path, job.captioner, BY_LENGTH)))
    for text in ("{", "3", '{"signals": ["words"]}'):
        path.write_text(text)
        with pytest.raises(UsageError, match=rf"{path.name}: not a calibration"):
            with_calibration(job)


def test_the_job_file_of_a_run_does_not_repeat_the_calibration(openai: JobConfig) -> None:
    job = replace(openai, calibration=BY_LENGTH.to_json())
    assert "calibration" not in job.to_toml()
