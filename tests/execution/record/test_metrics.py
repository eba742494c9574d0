"""The file of metrics, as Prometheus reads it."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from captioner.jobs import JobConfig, run_job
from captioner.jobs.errors import TemporaryError, UsageError
from captioner.jobs.execution.record.metrics import Metrics
from captioner.jobs.messages import on_stderr
from captioner.jobs.storage.backends.paths import out_path
from captioner.jobs.table.exclusive_writer import exclusive_writer
from captioner.jobs.table.layout import OutFolder


@pytest.fixture
def job(tmp_path: Path) -> JobConfig:
    """Return a job without images, whose OUT has an odd name."""
    (tmp_path / "photos").mkdir()
    out = tmp_path / 'a "b" \\ c\nd'
    metrics = tmp_path / "captioner.prom"
    return JobConfig(tmp_path / "photos", out, empty_ok=True, metrics=metrics, quiet=True)


def values(job: JobConfig, name: str) -> dict[str, float]:
    """The values of a metric, by OUT."""
    text = Path(str(job.metrics)).read_text()
    found = [s for family in text_string_to_metric_families(text) for s in family.samples]
    return {s.labels["out"]: s.value for s in found if s.name == f"captioner_{name}"}


def test_a_run_that_is_refused_leaves_the_last_success(job: JobConfig) -> None:
    run_job(job)
    assert values(job, "exit_code") == {str(job.out): 0}
    success = values(job, "last_success_timestamp_seconds")
    assert list(success) == [str(job.out)]
    with exclusive_writer(OutFolder(out_path(job.out)).new_run()), pytest.raises(TemporaryError):
        run_job(job)
    assert values(job, "exit_code") == {str(job.out): 75}
    assert values(job, "last_success_timestamp_seconds") == success
    with pytest.raises(UsageError):
        run_job(replace(job, empty_ok=False))
    assert values(job, "exit_code") == {str(job.out): 2}
    assert [path.name for path in Path(str(job.metrics)).parent.glob("*.unfinished")] == []


def test_a_job_that_never_succeeded_has_its_last_success_at_0(job: JobConfig) -> None:
    with pytest.raises(UsageError):
        run_job(replace(job, empty_ok=False))
    assert values(job, "last_success_timestamp_seconds") == {str(job.out): 0}


def test_a_file_about_another_table_is_replaced(job: JobConfig, tmp_path: Path) -> None:
    run_job(job)
    other = replace(job, out=tmp_path / "other")
    run_job(other)
    assert list(values(job, "last_success_timestamp_seconds")) == [str(other.out)]


def test_metrics_that_cannot_be_written_are_an_error_before_anything_else(
    job: JobConfig, tmp_path: Path
) -> None:
    (tmp_path / "notes.txt").write_text("Mine.")
    os.mkfifo(tmp_path / "fifo")
    names = ("nowhere/captioner.prom", ".", "notes.txt", "fifo")
    for metrics in (*(tmp_path / name for name in names), Path("/dev/full")):
        with pytest.raises(UsageError, match=rf"cannot write metrics to {metrics}: \w.*--metrics"):
            run_job(replace(job, metrics=metrics))
    assert not Path(job.out).exists()
    captions = Path(job.out, "captions")
    captions.mkdir(parents=True)
    with pytest.raises(UsageError, match="only files of the table"):
        run_job(replace(job, metrics=captions / "captioner.prom"))
    assert not [*captions.iterdir()] and (tmp_path / "notes.txt").read_text() == "Mine."


def test_metrics_that_cannot_be_written_any_more_are_one_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "metrics"
    folder.mkdir()
    metrics = Metrics(folder / "captioner.prom", "out")
    folder.rmdir()
    with on_stderr():
        metrics.write()
        metrics.end(0)
    (line,) = capsys.readouterr().err.splitlines()
    reason = f"cannot write {folder}/captioner.prom: No such file or directory"
    assert line == f"captioner: the run goes on without metrics: {reason}"
