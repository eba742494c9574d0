"""The folders of old runs are removed, and no others."""

from pathlib import Path

from captioner.jobs import JobConfig, run_job
from captioner.jobs.storage.backends.paths import out_path
from captioner.jobs.table.exclusive_writer import exclusive_writer
from captioner.jobs.table.layout import OutFolder
from captioner.jobs.table.runs.pruning import remove_old_runs
from tests.support.stores import keys


def names(out: Path) -> list[str]:
    return sorted(path.name for path in (out / "runs").iterdir() if path.is_dir())


def test_the_latest_runs_stay(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    job = JobConfig(tmp_path / "photos", tmp_path / "out", empty_ok=True, keep_runs=2, quiet=True)
    runs = [run_job(job).run_id for _ in range(4)]
    assert names(tmp_path / "out") == runs[-2:]


def test_what_is_no_finished_run_stays(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    old = [f"2025010{n}T000000-000000-0000" for n in range(1, 5)]
    for name in (*old, "2025-notes"):
        (runs / name).mkdir(parents=True)
        (runs / name / "report.json").touch()
    with exclusive_writer(OutFolder(tmp_path).new_run()) as writer:
        for name, waiting in ((old[0], "replacements"), (old[1], "scratch")):
            (runs / name / waiting).mkdir()
        assert remove_old_runs(writer, 1) == 2
        assert names(tmp_path) == ["2025-notes", *old[:2], writer.run.run_id]
        assert remove_old_runs(writer, 100) == 0


def test_old_runs_are_removed_from_a_store(url: str) -> None:
    out = OutFolder(out_path(url))
    for number in range(1, 4):
        for name in ("report.json", "job.toml"):
            (out.runs / f"2025010{number}T000000-000000-0000" / name).write_text("{}")
    with exclusive_writer(out.new_run()) as writer:
        writer.write_text("{}", writer.run.report)
        assert remove_old_runs(writer, 2) == 2
    left = {key for key in keys(url) if key.startswith("runs/2025")}
    assert {key.split("/")[1] for key in left} == {"20250103T000000-000000-0000"}
