"""`captioner plan`: what it says is what a run then does, and nothing is written."""

import json
import resource
from dataclasses import replace
from pathlib import Path

import pytest

from captioner.jobs import JobConfig, run_job
from captioner.jobs.cli.plan_text import preview_text
from captioner.jobs.errors import JobError, TemporaryError, UsageError
from captioner.jobs.estimate import Estimate
from captioner.jobs.preview import preview_job
from tests.support.commands import captioner
from tests.support.photographs import photograph, write_photographs


@pytest.fixture
def job(job: JobConfig) -> JobConfig:
    """Captions forty photographs."""
    write_photographs(Path(job.source), 40)
    return replace(job, partition_size=5)


def estimate(job: JobConfig, sample: int = 20) -> Estimate:
    found = preview_job(job, sample).estimate
    assert found is not None
    return found


def test_a_preview_says_what_the_run_then_does(job: JobConfig) -> None:
    before = preview_job(job, sample=0)
    report = run_job(job)
    assert (before.images, before.partitions) == (report.images, report.partitions) == (40, 8)
    (Path(job.source) / "000.jpg").unlink()
    (Path(job.source) / "001.jpg").write_bytes(photograph(50))
    write_photographs(Path(job.source) / "more", 3)
    (Path(job.source) / "notes.md").touch()
    preview = preview_job(job, sample=0)
    report = run_job(job)
    for name in ("listed", "new", "changed", "already_there", "vanished", "duplicates"):
        assert getattr(preview.counts, name) == getattr(report, name)
    assert (preview.counts.new, preview.counts.changed, preview.counts.vanished) == (3, 1, 1)
    assert preview.skipped == report.skipped
    assert preview.images == report.images == 4


def test_nothing_is_written(job: JobConfig) -> None:
    preview_job(job, sample=4)
    assert not Path(job.out).exists()


def test_an_estimate_names_all_steps_and_the_slowest(job: JobConfig) -> None:
    found = estimate(job)
    assert found.images == 20
    assert found.stages.keys() == {"fetch", "decode", "encode", "search"}
    assert found.limit in found.stages
    captioning = found.seconds - found.start_seconds
    assert captioning == pytest.approx(40 / found.images_per_second, rel=0.05, abs=0.1)
    assert found.start_seconds > 0
    assert found.workers == 2


def test_the_table_is_as_large_as_estimated(job: JobConfig) -> None:
    job = replace(job, partition_size=20)  # as a worker's share of the sample
    expected = estimate(job, sample=40).table_bytes
    run_job(job)
    actual = sum(path.stat().st_size for path in (Path(job.out) / "captions").iterdir())
    assert actual == pytest.approx(expected, rel=0.25)


def test_a_sample_of_more_images_than_there_are_takes_all(job: JobConfig) -> None:
    assert estimate(job, sample=1000).images == 40


def test_without_work_there_is_no_estimate(job: JobConfig) -> None:
    run_job(job)
    preview = preview_job(job)
    assert preview.estimate is None
    assert "40 already in the table" in preview_text(preview)


def test_images_that_fail_do_not_stop_a_sample_unless_all_do(job: JobConfig) -> None:
    for number in range(1, 40):
        (Path(job.source) / f"{number:03d}.jpg").write_bytes(b"no image")
    preview = preview_job(job, sample=20)
    assert preview.estimate is not None
    assert (preview.estimate.images, preview.estimate.failures) == (20, {"unreadable": 19})
    assert "timed on 20 images, 19 of which failed)" in preview_text(preview)
    (Path(job.source) / "000.jpg").write_bytes(b"no image")
    preview = preview_job(job, sample=20)
    assert preview.estimate is None
    reason = "none of the sample images got a caption (20 unreadable); "
    assert f"time       unknown: {reason}{job.source}/" in preview_text(preview)


def test_errors_are_those_of_a_run(
    job: JobConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("captioner.jobs.execution.cluster.scheduler.CONNECT_SECONDS", 1)
    with pytest.raises(UsageError, match="does not exist"):
        preview_job(replace(job, source=tmp_path / "nowhere"))
    with pytest.raises(UsageError, match="no checkpoint"):
        preview_job(replace(job, checkpoint="nothing"))
    with pytest.raises(TemporaryError, match="no Dask scheduler"):
        preview_job(replace(job, scheduler="tcp://127.0.0.1:1"))


def test_what_a_run_would_refuse_is_refused(job: JobConfig) -> None:
    with pytest.raises(UsageError, match="have no confidence"):
        preview_job(replace(job, min_confidence=0.5))


def test_a_temporary_folder_without_room_is_one_clear_error(job: JobConfig) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, limits[1]))  # bytes of a file
    try:
        with pytest.raises(JobError, match=r"cannot plan: .*; set TMPDIR to a folder"):
            preview_job(job)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_an_image_that_kills_its_process_leaves_the_time_unknown(job: JobConfig) -> None:
    write_photographs(Path(job.source) / "harmful", 1, harm=b"KILL")
    preview = preview_job(job, sample=100)
    assert (preview.images, preview.estimate) == (41, None)
    assert "time       unknown: one of the sample images" in preview_text(preview)


def test_an_image_that_breaks_the_captioner_leaves_the_time_unknown(job: JobConfig) -> None:
    write_photographs(Path(job.source) / "harmful", 1, harm=b"ODD!")
    preview = preview_job(job, sample=100)
    assert (preview.images, preview.estimate) == (41, None)
    assert preview.problem is not None
    assert preview.problem.endswith("image failed: sitecustomize.OddError: odd image")


def test_rows_that_a_run_would_remove_are_told(job: JobConfig) -> None:
    run_job(job)
    (Path(job.source) / "000.jpg").unlink()
    assert "1 vanished, to be removed" in preview_text(preview_job(replace(job, prune=True)))


def test_a_plan_says_how_many_images_it_has_found(
    job: JobConfig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("FIRST_LINE_SECONDS", "LINE_SECONDS"):
        monkeypatch.setattr(f"captioner.jobs.execution.record.progress.{name}", 0)
    with caplog.at_level("INFO", "captioner"):
        preview_job(replace(job, quiet=False), sample=0)
    assert caplog.messages[-1].endswith(", 40 images found")  # there may be others before
    caplog.clear()
    preview_job(replace(job, quiet=True), sample=0)
    assert not caplog.messages


def test_the_command_prints_lines_or_json(job: JobConfig, tmp_path: Path) -> None:
    command = ["plan", job.source, "--out", tmp_path / "out", "--checkpoint", job.checkpoint]
    text = captioner(*command, "--sample", 0, "--quiet")
    assert (text.returncode, text.stderr) == (0, "")
    assert text.stdout.startswith("to caption 40 (40 new)")
    found = json.loads(captioner(*command, "--sample", 4, "--workers", 1, "--json").stdout)
    assert (found["counts"]["new"], found["estimate"]["images"]) == (40, 4)
    wrong = captioner(*command, "--sample", -1)
    assert wrong.returncode == 2
    assert "--sample must be 0 or a whole number above it, not -1" in wrong.stderr
