"""What `captioner run` prints when it ends."""

import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from captioner.jobs import JobConfig
from captioner.jobs.cli.main import main
from captioner.jobs.cli.text import closing, summary
from captioner.schemas.job_report import CaptionExample, FailedImage, JobReport
from tests.support.photographs import write_photographs

NOW = datetime(2026, 1, 1, tzinfo=UTC)
REPORT = JobReport("run", "photos", "out/captions", NOW, NOW, 0, planned=8, images=8)


def examples(*confidences: float) -> list[CaptionExample]:
    return [
        CaptionExample(image_uri=f"/{each}.jpg", caption=f"A {each}.", confidence=each)
        for each in confidences
    ]


@pytest.fixture
def arguments(tmp_path: Path, job: JobConfig, calibrated_checkpoint: Path) -> list[str]:
    """The command line of a job with two failures among its images."""
    photos = write_photographs(tmp_path / "photos", 6)
    (photos / "empty.jpg").touch()
    (photos / "text.jpg").write_text("no image")
    job_file = tmp_path / "job.toml"
    job_file.write_text(replace(job, checkpoint=calibrated_checkpoint, quiet=False).to_toml())
    return ["run", "--config", str(job_file)]


def test_too_many_failures_are_counted_on_stderr(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, "--max-failures", "1", "--quiet"]) == 3
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == "captioner: 2 of 8 images failed, more than --max-failures 1\n"
    for path in (tmp_path / "photos").glob("0*.jpg"):
        path.unlink()
    assert main([*arguments, "--out", str(tmp_path / "other"), "--quiet"]) == 3
    assert capsys.readouterr().err == "captioner: all 2 images failed\n"


def test_a_run_at_a_terminal_ends_with_captions_and_what_to_do_next(
    arguments: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert main(arguments) == 0
    assert "surest" not in capsys.readouterr().out
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert main([*arguments, "--out", str(tmp_path / "the table")]) == 0
    printed = capsys.readouterr().out
    assert "\nfailed     2 (2 unreadable)\n  unreadable " in printed
    lines = printed.partition("\nsurest\n")[2].splitlines()
    assert len([line for line in lines if line.endswith(".jpg")]) == 6
    assert lines[4] == "least sure"
    assert lines[10].startswith(f"  captioner review '{tmp_path}/the table'")
    assert lines[13].startswith(f"  captioner status '{tmp_path}/the table' --failed")


def test_few_captions_are_shown_once() -> None:
    report = replace(REPORT, surest=examples(0.9, 0.5, 0.2), least_sure=examples(0.1, 0.2, 0.5))
    shown = [line for line in closing(report, "out").splitlines() if line.endswith(".jpg")]
    assert shown == [f"  {each}0  A {each}.  /{each}.jpg" for each in (0.9, 0.5, 0.2, 0.1)]


def test_without_confidences_no_caption_is_shown() -> None:
    assert closing(REPORT, "out").startswith("\nnext\n  captioner review out ")


def test_the_summary_names_the_first_failure_of_each_kind_and_both_speeds() -> None:
    failures = {
        "denied": FailedImage(image_uri="/a.jpg", error="403"),
        "timeout": FailedImage(image_uri="/b.jpg", error="no answer\nin 15 s"),
    }
    report = replace(REPORT, first_failures=failures, images_per_second=0.5, captioning_seconds=2.0)
    text = summary(report)
    assert "\n  denied   /a.jpg: 403\n  timeout  /b.jpg: no answer in 15 s\n" in text
    assert "4.0 images/s (0.5 images/s with listing the source and starting the workers)" in text
