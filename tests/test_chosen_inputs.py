"""Which images a run captions: several sources, excluded ones, standard input."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from captioner.jobs import JobConfig, run_job
from tests.support.files import write_tar
from tests.support.photographs import photograph, write_photographs
from tests.support.tables import read_table


@pytest.fixture
def job(job: JobConfig) -> JobConfig:
    """Return a job that captions eight photographs, in partitions of three."""
    write_photographs(Path(job.source), 8)
    return replace(job, partition_size=3)


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

    def captioned(*images: Path) -> str:
        text = "".join(f"{image.relative_to(tmp_path)}\n" for image in images)
        done = subprocess.run(command, input=text, text=True, cwd=tmp_path,
                              capture_output=True)  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert captioned(*names[:2]).startswith("images     2\n")
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
