"""What `captioner run` prints when it ends."""

import json
import re
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from captioner.jobs import JobConfig
from captioner.jobs.cli.main import main
from captioner.jobs.cli.text import closing, summary
from captioner.schemas.job_report import CaptionExample, FailedImage, JobReport
from tests.support.photographs import write_photographs
from tests.support.tables import statuses

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


def test_programs_get_events_metrics_and_the_report(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = tmp_path / "captioner.prom"
    watched = [*arguments, "--log-format", "json", "--json", "--metrics", str(metrics)]
    assert main(watched) == 0
    printed = capsys.readouterr()
    (line,) = printed.out.splitlines()
    report = JobReport.from_json(line)
    assert (report.exit_code, report.captioned, report.failures) == (0, 6, {"unreadable": 2})
    events = [json.loads(line) for line in printed.err.splitlines()]
    others = ("dashboard", "not_encrypted", "library", "progress")
    ours = [event for event in events if event["event"] not in others]
    kinds = [event["event"] for event in ours]
    assert kinds == ["started", "planned", *["committed"] * report.partitions, "finished"]
    assert {event["run_id"] for event in ours} == {report.run_id}
    assert (ours[1]["images"], ours[-1]["statuses"]) == (8, dict(report.statuses))
    values = samples(metrics)
    out = f"out={tmp_path}/out"
    assert values[f"captioner_images,{out},pass=first,status=ok"] == 6
    assert values[f"captioner_images,{out},pass=first,status=unreadable"] == 2
    assert values[f"captioner_exit_code,{out}"] == 0
    success = values[f"captioner_last_success_timestamp_seconds,{out}"]
    assert success >= report.started_at.timestamp()
    assert main([*watched, "--max-failures", "1", "--count-all-failures"]) == 3
    printed = capsys.readouterr()
    second = JobReport.from_json(printed.out)
    assert (second.images, second.failed_in_table) == (0, {"unreadable": 2})
    (end,) = [line for line in printed.err.splitlines() if '"finished"' in line]
    assert (json.loads(end)["too_many_failures"], json.loads(end)["gates_exceeded"]) == (True, [])
    values = samples(metrics)
    assert values[f"captioner_exit_code,{out}"] == 3
    assert values[f"captioner_last_success_timestamp_seconds,{out}"] == success
    assert values[f"captioner_table_images,{out},pass=first,status=unreadable"] == 2


def samples(metrics: Path) -> dict[str, float]:
    """The values of a file of metrics, as Prometheus reads it, by name and labels."""
    families = text_string_to_metric_families(metrics.read_text())
    found = [sample for family in families for sample in family.samples]
    names = [",".join([s.name, *(f"{k}={s.labels[k]}" for k in sorted(s.labels))]) for s in found]
    assert len({*names}) == len(names)
    return dict(zip(names, [sample.value for sample in found], strict=True))


def test_rows_that_failed_in_an_earlier_run_are_counted_in_the_summary(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, "--max-failures", "2"]) == 0
    first = capsys.readouterr().out
    assert "in table" not in first
    assert main([*arguments, "--max-failures", "1"]) == 0
    printed = capsys.readouterr().out
    assert "images     nothing to do (8 already in the table)" in printed
    assert "in table   2 failed (2 unreadable)" in printed
    assert re.search(r"run        (\S+)\nreport     .*/runs/\1/report.html", printed)
    assert main([*arguments, "--max-failures", "1", "--count-all-failures", "--quiet"]) == 3
    error = "captioner: 2 of 8 images in the table failed, more than --max-failures 1\n"
    assert capsys.readouterr().err == error
    assert main([*arguments, "--max-failures", "30%", "--count-all-failures", "--quiet"]) == 0


def test_a_gate_ends_a_run_with_3_and_removes_no_row(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job_file = tmp_path / "job.toml"
    gates = {"min_images": 1, "max_failed": 0.5, "max_failed_rise": 0.2}
    job_file.write_text(f"{job_file.read_text()}\n[gates]\n" + "".join(
        f"{name} = {limit}\n" for name, limit in gates.items()))  # fmt: skip
    assert main(arguments) == 0
    unjudged = "max_failed_rise.unreadable was not judged: no former run of at least 1 image that"
    assert unjudged in capsys.readouterr().err
    (tmp_path / "photos" / "new.jpg").write_text("no image")
    assert main([*arguments, "--max-failures", "100%", "--json"]) == 3
    printed = capsys.readouterr()
    report = JobReport.from_json(printed.out)
    assert [gate["gate"] for gate in report.exceeded] == [
        "max_failed.unreadable",
        "max_failed_rise.unreadable",
    ]
    absolute, relative = [line for line in printed.err.splitlines() if "max_failed" in line]
    assert "1 of 1 images (100.0%) have the status unreadable (max_failed.unreadable" in absolute
    assert absolute.endswith(f"`captioner status {tmp_path}/out --failed` lists the failed images")
    assert "rose from 0.25 to 1 (1 of 1 images) since run" in relative
    assert statuses(tmp_path / "out") == {"ok": 6, "unreadable": 3}
    page = (tmp_path / "out" / "runs" / report.run_id / "report.html").read_text()
    assert "exceeded by 0.5" in page and "too many failed images" not in page


def test_json_also_says_how_a_run_failed(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", str(tmp_path / "nowhere"), "--out", "out", "--json"]) == 2
    failed = json.loads(capsys.readouterr().out)
    assert failed.keys() == {"exit_code", "error"} and failed["exit_code"] == 2
    assert failed["error"].startswith(f"{tmp_path}/nowhere does not exist")
    assert main([*arguments, "--json", "--checkpoint", "none"]) == 2
    report = JobReport.from_json(capsys.readouterr().out)
    assert report.exit_code == 2 and report.error and "no checkpoint 'none'" in report.error
    assert (tmp_path / "out" / "runs" / report.run_id / "report.json").is_file()


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
