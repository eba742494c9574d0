"""`captioner verify --sample` captions images again and compares them with their rows."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from captioner.jobs import JobConfig, run_job
from captioner.jobs.cli.main import main
from captioner.jobs.table.compaction.compact import compact
from captioner.jobs.verify.findings import Kind, Sampled
from captioner.jobs.verify.sample import Choice
from captioner.jobs.verify.verify import verify_table
from captioner.options import CaptionerOptions
from tests.support.broken import change, parts, with_values
from tests.support.files import write_tar
from tests.support.photographs import photograph, write_photographs
from tests.support.rows import row, write_rows

IMAGES = 14


@pytest.fixture(scope="module")
def job(
    tmp_path_factory: pytest.TempPathFactory, scheduler: str, calibrated_checkpoint: Path
) -> JobConfig:
    """Return a job that has captioned files and members, most of them by two captioners."""
    folder = tmp_path_factory.mktemp("sample")
    photos = write_photographs(folder / "photos", 6)
    (photos / "copy.jpg").write_bytes(photograph(0))
    (photos / "torn.jpg").write_bytes(b"")
    members = {f"{n}.jpg": photograph(n) for n in range(10, 13)}
    archive = write_tar(folder / "some.tar", members)
    images = pa.table({"image": [photograph(n) for n in range(20, 23)]})
    pq.write_table(images, folder / "images.parquet")
    job = JobConfig(
        source=[photos, archive, folder / "images.parquet"],
        out=folder / "out",
        checkpoint=calibrated_checkpoint,
        device="cpu",
        scheduler=scheduler,
        min_confidence=0.5,
        quiet=True,
    )
    run_job(job)
    run_job(replace(job, beam_size=7, redo_share=0.5))
    return job


@pytest.fixture
def out(job: JobConfig, tmp_path: Path) -> Path:
    """Return a copy of the table."""
    return Path(shutil.copytree(str(job.out), tmp_path / "out"))


def choice(job: JobConfig, **values: object) -> Choice:
    options = CaptionerOptions(str(job.checkpoint), device="cpu")
    return Choice(**{"share": 1.0, "captioner": options, **values})  # type: ignore[arg-type]


def sampled(out: Path, chosen: Choice) -> tuple[Sampled, Sequence[str]]:
    """Return the counts of a sample, and what differs."""
    found = verify_table(out, chosen)
    assert found.sample is not None
    return found.sample, [each.what for each in found.faults if each.kind == Kind.SAMPLE]


def test_images_of_every_kind_and_captioner_get_the_same_row_again(
    out: Path, job: JobConfig
) -> None:
    found, different = sampled(out, choice(job))
    assert (found, different) == (Sampled(IMAGES, same=IMAGES), [])


def test_rows_that_differ_are_told_from_images_that_changed_or_went(
    out: Path, job: JobConfig, tmp_path: Path
) -> None:
    (path,) = parts(out)
    names = [Path(uri).name for uri in pq.read_table(path)["image_uri"].to_pylist()]
    captions = pq.read_table(path)["caption"].to_pylist()
    confidences = pq.read_table(path)["confidence"].to_pylist()
    captions[names.index("001.jpg")] = "A lie."
    at = names.index("002.jpg")
    confidences[at] = abs(confidences[at] - 0.1)
    widths = pq.read_table(path)["width"].to_pylist()
    widths[names.index("003.jpg")] = 81
    for column, values in (("caption", captions), ("confidence", confidences), ("width", widths)):
        change(path, with_values(column, *values))
    (photos, *_) = job.source  # type: ignore[misc]
    changed, gone = Path(photos, "004.jpg"), Path(photos, "005.jpg")
    before = {file: file.read_bytes() for file in (changed, gone)}
    changed.write_bytes(photograph(30))
    gone.unlink()
    try:
        found, different = sampled(out, choice(job))
    finally:
        for file, data in before.items():
            file.write_bytes(data)
    assert (found.different, found.changed, found.unavailable) == (3, 1, 1)
    assert found.same == IMAGES - 5
    text = "\n".join(different)
    for what in ("001.jpg: caption is A lie., now ", "002.jpg: confidence is ", "is 81, now 80"):
        assert what in text


def test_the_limits_of_the_last_run_hold_for_a_sample(job: JobConfig, tmp_path: Path) -> None:
    run_job(replace(job, out=tmp_path / "limited", max_pixels=100, max_bytes=10**9))
    found, faults = sampled(tmp_path / "limited", choice(job, share=1.0))
    assert (found.same, faults) == (found.images, [])
    (path,) = (tmp_path / "limited" / "runs").glob("*/job.toml")
    path.unlink()
    found, faults = sampled(tmp_path / "limited", choice(job, share=1.0))
    assert found.unavailable and not faults


def test_another_captioner_is_named_and_nothing_is_compared(
    out: Path, job: JobConfig, tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["verify", str(out), "--sample", "100%", "--checkpoint", str(tiny_checkpoint)]
    assert main(line) == 0
    assert f"{IMAGES} not captioned" in (text := capsys.readouterr().out)
    assert "give another --checkpoint" in text
    line[-1] = str(job.checkpoint)
    assert main([*line, "--json", "--seed", "3"]) == 0
    assert json.loads(capsys.readouterr().out)["sample"]["same"] == IMAGES


def test_a_sample_depends_on_its_seed_and_not_on_the_files(tmp_path: Path) -> None:
    for number in range(4):
        uris = [f"/{n:03d}.jpg" for n in range(number, 200, 4)]
        write_rows(tmp_path, [row(uri) for uri in uris], f"f{number}")
    nobody = CaptionerOptions("nobody")

    def images(**values: float) -> int:
        found = verify_table(tmp_path, Choice(captioner=nobody, **values))  # type: ignore[arg-type]
        assert found.sample and found.sample.images == found.sample.not_captioned
        return found.sample.images

    assert [images(count=7), images(count=500), images(share=1.0)] == [7, 200, 200]
    assert 5 < images(share=0.1) < 40
    assert images(share=1e-9) == 1
    first = images(share=0.3)
    compact(tmp_path, quiet=True)
    assert images(share=0.3) == first
    assert {images(share=0.3, seed=seed) for seed in range(5)} != {first}
