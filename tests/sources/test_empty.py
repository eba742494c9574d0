"""Sources without images, in jobs that allow them."""

import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from captioner.jobs import JobConfig, run_job
from captioner.jobs.errors import UsageError
from tests.support.photographs import write_photographs
from tests.support.rows import row, write_rows


@pytest.fixture
def job(tmp_path: Path) -> JobConfig:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "notes.md").touch()
    return JobConfig(tmp_path / "photos", tmp_path / "out", empty_ok=True, quiet=True)


def test_an_empty_folder_is_no_error(job: JobConfig) -> None:
    with pytest.raises(UsageError, match="no images in"):
        run_job(replace(job, empty_ok=False))
    report = run_job(job)
    assert (report.exit_code, report.listed, report.images) == (0, 0, 0)
    assert sum(report.skipped.values()) == 1


@pytest.mark.parametrize("name", ["list.txt", "list.csv", "list.jsonl", "photos.tar"])
def test_a_list_or_archive_without_images_is_an_error(
    job: JobConfig, tmp_path: Path, name: str
) -> None:
    path = tmp_path / name
    path.write_text("image_uri\n" if name.endswith("csv") else "")
    if name.endswith("tar"):
        with tarfile.open(path, "w") as archive:
            archive.add(tmp_path / "photos" / "notes.md", "notes.md")
    with pytest.raises(UsageError, match=f"no images in .*{name}.*--empty-ok"):
        run_job(replace(job, source=path, empty_ok=False))
    assert run_job(replace(job, source=path)).listed == 0


def test_an_empty_list_is_no_error(job: JobConfig, tmp_path: Path) -> None:
    write_photographs(tmp_path / "photos", 1)
    for text in ("", "/elsewhere.jpg\n"):
        (tmp_path / "list.txt").write_text(text)
        assert run_job(replace(job, only=tmp_path / "list.txt")).listed == 0


def test_a_source_that_does_not_exist_is_an_error(job: JobConfig, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        run_job(replace(job, source=tmp_path / "nowhere"))


def test_one_of_several_sources_may_be_empty(job: JobConfig, tmp_path: Path) -> None:
    more = write_photographs(tmp_path / "more", 2)
    limited = replace(job, source=[tmp_path / "photos", more], only=None)
    from captioner.jobs.planning.listing import list_images

    listed = [name for batch in list_images(limited).batches for name in batch[0].to_pylist()]
    assert [Path(name).name for name in listed] == ["000.jpg", "001.jpg"]


def test_an_empty_source_removes_no_rows(
    job: JobConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_rows(tmp_path / "out", [row(str(tmp_path / "photos" / "000.jpg"))])
    report = run_job(replace(job, prune=True))
    assert (report.vanished, report.pruned, report.table_statuses) == (1, 0, {"ok": 1})
    line = "1 row has no image in SOURCE; not pruned, because SOURCE is empty"
    assert line in capsys.readouterr().err
