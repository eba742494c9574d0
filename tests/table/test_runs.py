"""The folders of old runs are removed, and no others."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from captioner.jobs import JobConfig, run_job
from captioner.jobs.quality.former import is_latest_measure
from captioner.jobs.storage.backends.paths import out_path
from captioner.jobs.table.exclusive_writer import exclusive_writer
from captioner.jobs.table.layout import OutFolder, RunFolder
from captioner.jobs.table.runs.pruning import remove_old_runs
from captioner.schemas.job_report import JobReport, Quality
from tests.support.stores import keys

QUALITY = Quality(images=100, captions=100, unique=1.0, top_caption=0.01, most_frequent="A dog.",
                  confidence=0.5, low_confidence=0.0, failed={})  # fmt: skip


def unneeded(run: RunFolder) -> bool:
    return False


def names(out: Path) -> list[str]:
    return sorted(path.name for path in (out / "runs").iterdir() if path.is_dir())


def test_the_latest_runs_stay(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    job = JobConfig(tmp_path / "photos", tmp_path / "out", empty_ok=True, keep_runs=2, quiet=True)
    runs = [run_job(job).run_id for _ in range(4)]
    assert names(tmp_path / "out") == runs[-2:]


def test_the_ids_of_runs_sort_by_time_though_a_clock_was_ahead(tmp_path: Path) -> None:
    ahead = ("25260101T000000-999999-0000", "99991231T235959-999999-0000", "3000-notes")
    for number, name in enumerate(ahead):
        (tmp_path / str(number) / "runs" / name).mkdir(parents=True)
    ids = [OutFolder(tmp_path / str(number)).new_run().run_id for number in range(3)]
    assert ids[0].startswith("25260101T000001-000000-")
    now = f"{datetime.now(UTC):%Y%m%d}T"
    assert ids[1].startswith(now) and ids[2].startswith(now)


def test_what_is_no_finished_run_stays(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    old = [f"2025010{n}T000000-000000-0000" for n in range(1, 5)]
    for name in (*old, "2025-notes"):
        (runs / name).mkdir(parents=True)
        (runs / name / "report.json").touch()
    with exclusive_writer(OutFolder(tmp_path).new_run()) as writer:
        for name, waiting in ((old[0], "replacements"), (old[1], "scratch")):
            (runs / name / waiting).mkdir()
        assert remove_old_runs(writer, 1, unneeded) == 2
        assert names(tmp_path) == ["2025-notes", *old[:2], writer.run.run_id]
        assert remove_old_runs(writer, 100, unneeded) == 0


def test_the_latest_run_that_gates_can_compare_with_stays(tmp_path: Path) -> None:
    now = datetime(2025, 1, 1, tzinfo=UTC)
    report = JobReport("", "photos", "out/captions", now, now, 0, quality=QUALITY)
    second = replace(report, doubted=100)
    small = replace(report, quality=Quality(**{**QUALITY, "images": 99}))
    kinds = [second, second, report, report, small, replace(report, exit_code=3)]
    names_of = [f"2025010{n}T000000-000000-0000" for n in range(1, 7)]
    for name, each in zip(names_of, kinds, strict=True):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "report.json").write_text(each.to_json())
    with exclusive_writer(OutFolder(tmp_path).new_run()) as writer:
        assert remove_old_runs(writer, 1, is_latest_measure) == 4
        assert names(tmp_path) == [names_of[1], names_of[3], writer.run.run_id]
        writer.write_text(report.to_json(), writer.run.report)
        assert remove_old_runs(writer, 1, is_latest_measure) == 1
    assert names(tmp_path) == [names_of[1], writer.run.run_id]


def test_old_runs_are_removed_from_a_store(url: str) -> None:
    out = OutFolder(out_path(url))
    for number in range(1, 4):
        for name in ("report.json", "job.toml"):
            (out.runs / f"2025010{number}T000000-000000-0000" / name).write_text("{}")
    with exclusive_writer(out.new_run()) as writer:
        writer.write_text("{}", writer.run.report)
        assert remove_old_runs(writer, 2, is_latest_measure) == 2
    left = {key for key in keys(url) if key.startswith("runs/2025")}
    assert {key.split("/")[1] for key in left} == {"20250103T000000-000000-0000"}
