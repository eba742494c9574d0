"""Which images a run captions: several sources, a limit, a list, by force, excluded ones."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from captioner.jobs import JobConfig, run_job
from captioner.jobs.cli.plan_text import preview_text
from captioner.jobs.cli.text import summary
from captioner.jobs.errors import UsageError
from captioner.jobs.preview import preview_job
from captioner.jobs.table.layout import OutFolder
from tests.support.files import write_tar
from tests.support.photographs import photograph, write_photographs
from tests.support.tables import image_names, read_table


@pytest.fixture
def job(job: JobConfig) -> JobConfig:
    """Return a job that captions eight photographs, in partitions of three."""
    write_photographs(Path(job.source), 8)
    return replace(job, partition_size=3)


def run_ids(job: JobConfig) -> dict[str, str]:
    """Return the run that wrote the row of each image, by file name."""
    rows = read_table(Path(job.out)).select(["image_uri", "run_id"]).to_pylist()
    return {Path(row["image_uri"]).name: row["run_id"] for row in rows}


def list_of(folder: Path, *names: str) -> Path:
    path = folder / "list.txt"
    path.write_text("".join(f"photos/{name}\n" for name in names))
    return path


# A limit


def test_a_run_with_a_limit_captions_the_first_images_and_a_later_run_the_rest(
    job: JobConfig,
) -> None:
    first = run_job(replace(job, limit=5))
    assert (first.new, first.planned, first.images, first.postponed) == (8, 5, 5, 3)
    assert image_names(Path(job.out)) == [f"{n:03d}.jpg" for n in range(5)]
    assert "3 left for a later run" in summary(first)
    second = run_job(replace(job, limit=5))
    assert (second.already_there, second.images, second.postponed) == (5, 3, 0)
    assert run_job(job).planned == 0


def test_a_plan_has_the_limit_of_the_run(job: JobConfig) -> None:
    preview = preview_job(replace(job, limit=2), sample=0)
    assert (preview.images, preview.postponed, preview.partitions) == (2, 6, 1)
    assert "6 left for a later run" in preview_text(preview)
    assert json.loads(preview.to_json())["postponed"] == 6


def test_a_limit_hides_no_image_that_vanished_and_prunes_none_that_waits(job: JobConfig) -> None:
    run_job(job)
    (Path(job.source) / "000.jpg").unlink()
    write_photographs(Path(job.source) / "more", 4)
    report = run_job(replace(job, limit=1, prune=True))
    assert (report.vanished, report.pruned, report.images, report.postponed) == (1, 1, 1, 3)
    assert run_job(replace(job, prune=True)).pruned == 0
    assert read_table(Path(job.out)).num_rows == 11


# Several sources


def test_sources_of_several_kinds_fill_one_table(job: JobConfig, tmp_path: Path) -> None:
    archive = write_tar(tmp_path / "x.tar", {"in-tar.jpg": photograph(20)})
    write_photographs(tmp_path / "listed", 2)
    manifest = tmp_path / "list.csv"
    manifest.write_text("image_uri,label\nlisted/000.jpg,cat\nphotos/001.jpg,dog\n")
    pq.write_table(pa.table({"image": [photograph(21)], "label": ["bird"]}), tmp_path / "x.parquet")
    sources = [job.source, archive, manifest, tmp_path / "x.parquet"]
    several = replace(job, source=sources)
    report = run_job(several)
    assert (report.captioned, report.duplicates, report.failed) == (11, 1, 0)
    assert report.source == report.sources == [*map(str, sources)]
    assert replace(report, source="one").sources == ["one"]
    labels = {Path(row["image_uri"]).name: row["label"]
              for row in read_table(Path(job.out)).to_pylist()}  # fmt: skip
    assert labels["x.parquet#row=0"] == "bird"
    assert labels["001.jpg"] is None  # as the folder listed it first
    assert run_job(several).planned == 0


def test_what_none_of_the_sources_lists_has_vanished(job: JobConfig, tmp_path: Path) -> None:
    write_photographs(tmp_path / "others", 3)
    write_photographs(tmp_path / "elsewhere", 1)
    both = replace(job, source=[job.source, tmp_path / "others"])
    run_job(replace(job, source=tmp_path / "elsewhere"))
    run_job(both)
    (tmp_path / "photos" / "000.jpg").unlink()
    (tmp_path / "others" / "002.jpg").unlink()
    report = run_job(replace(both, prune=True))
    assert (report.vanished, report.pruned) == (2, 2)
    assert read_table(Path(job.out)).num_rows == 10


# A list, and force


def test_only_the_images_of_a_list_are_captioned_and_no_other_has_vanished(
    job: JobConfig, tmp_path: Path
) -> None:
    run_job(replace(job, limit=1))
    (Path(job.source) / "000.jpg").rename(Path(job.source) / "moved.jpg")
    only = replace(job, only=list_of(tmp_path, "001.jpg", "005.jpg", "nowhere.jpg"))
    assert preview_job(only, sample=0).images == 2
    report = run_job(only)
    assert (report.listed, report.images, report.vanished) == (2, 2, 0)
    assert report.skipped == {"named by --only, but not in SOURCE": 1}
    assert image_names(Path(job.out)) == ["000.jpg", "001.jpg", "005.jpg"]
    assert run_job(only).planned == 0


def test_force_captions_again_what_has_a_row(job: JobConfig, tmp_path: Path) -> None:
    first = run_job(job)
    before = read_table(Path(job.out)).drop_columns(["run_id", "annotated_at"])
    only = replace(job, only=list_of(tmp_path, "001.jpg", "005.jpg"), force=True)
    assert "2 to be captioned again" in preview_text(preview_job(only, sample=0))
    second = run_job(only)
    assert (second.forced, second.images, second.reused) == (2, 2, 0)
    assert "2 captioned again" in summary(second)
    again = [name for name, run in run_ids(job).items() if run == second.run_id]
    assert again == ["001.jpg", "005.jpg"]
    assert set(run_ids(job).values()) == {first.run_id, second.run_id}
    third = run_job(replace(job, force=True))
    assert (third.forced, third.new, third.reused) == (8, 0, 0)
    assert set(run_ids(job).values()) == {third.run_id}
    assert read_table(Path(job.out)).drop_columns(["run_id", "annotated_at"]) == before


def test_force_captions_identical_images_once(job: JobConfig) -> None:
    (Path(job.source) / "copy.jpg").write_bytes(photograph(0))
    job = replace(job, partition_size=20)
    run_job(job)
    report = run_job(replace(job, force=True))
    assert (report.forced, report.captioned) == (9, 9)
    assert report.reused == 1


def test_a_failure_by_force_keeps_the_caption(job: JobConfig) -> None:
    run_job(job)
    out = OutFolder(Path(job.out))
    part = out.table_files()[0]
    table = pq.read_table(part)
    gone = pa.array(["memory://gone.jpg", *table["image_uri"].to_pylist()[1:]])
    pq.write_table(table.set_column(0, table.schema.field(0), gone), part)
    listed = Path(job.out).parent / "gone.txt"
    listed.write_text("memory://gone.jpg\n")
    report = run_job(replace(job, source=listed, force=True))
    assert (report.forced, report.failed) == (1, 1)
    (row,) = [row for row in read_table(Path(job.out)).to_pylist() if "gone" in row["image_uri"]]
    assert row["status"] == "ok"


# What is left out


def test_rows_of_images_that_are_left_out_stay(job: JobConfig) -> None:
    write_photographs(Path(job.source) / "raw", 2)
    run_job(job)
    without = replace(job, exclude=["raw"], prune=True)
    report = run_job(without)
    assert (report.listed, report.vanished, report.skipped) == (8, 0, {"excluded by raw": 1})
    assert read_table(Path(job.out)).num_rows == 10


# The command


@pytest.mark.slow
def test_the_command_takes_a_list_from_a_pipe_and_continues(job: JobConfig, tmp_path: Path) -> None:
    names = sorted(Path(job.source).iterdir())
    (tmp_path / "job.toml").write_text(f'workers = 1\ncheckpoint = "{job.checkpoint}"\n')
    command = [sys.executable, "-m", "captioner.jobs", "run", "-", "--out", str(tmp_path / "out"),
               "--config", str(tmp_path / "job.toml")]  # fmt: skip

    def captioned(*images: Path, options: tuple[str, ...] = ()) -> str:
        text = "".join(f"{image.relative_to(tmp_path)}\n" for image in images)
        done = subprocess.run([*command, *options], input=text, text=True, cwd=tmp_path,
                              capture_output=True)  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert captioned(*names[:3], options=("--limit", "2")).startswith("images     2 (1 left")
    assert captioned(*names[:3]).startswith("images     1 (2 already")
    assert captioned(*names[:3]).startswith("images     nothing to do")
    (table,) = {row["status"] for row in read_table(tmp_path / "out").to_pylist()}
    assert table == "ok"


def test_several_sources_and_patterns_are_given_by_repetition(
    job: JobConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from captioner.jobs.cli.main import main

    write_photographs(tmp_path / "others", 5)
    code = main(
        ["plan", str(job.source), str(tmp_path / "others"), "--out", str(tmp_path / "out"),
         "--checkpoint", str(job.checkpoint), "--sample", "0", "--json",
         "--exclude", "00[0-3].jpg", "--exclude", "raw/"]
    )  # fmt: skip
    assert code == 0
    found = json.loads(capsys.readouterr().out)
    assert found["source"] == [str(job.source), str(tmp_path / "others")]
    assert found["skipped"] == {"excluded by 00[0-3].jpg": 8}
    assert found["images"] == 5


def test_a_list_needs_no_listing_that_is_whole(job: JobConfig, tmp_path: Path) -> None:
    only = list_of(tmp_path, "000.jpg")
    with pytest.raises(UsageError, match="prune must be omitted if only is given"):
        replace(job, only=only, prune=True)
