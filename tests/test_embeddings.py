"""Runs with embeddings: every image with a caption has one, whatever happened before."""

import os
import signal
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from captioner import Captioner
from captioner.image import decode_image
from captioner.jobs import JobConfig, run_job
from captioner.jobs.errors import JobError
from captioner.jobs.execution.worker import worker
from captioner.jobs.preview import preview_job
from captioner.jobs.storage.backends.paths import out_path
from captioner.jobs.table.embeddings import read_embeddings
from captioner.jobs.table.layout import OutFolder
from tests.support.commands import start
from tests.support.photographs import photograph, write_photographs
from tests.support.stores import rows as rows_on_store
from tests.support.tables import read_table


@pytest.fixture
def job(job: JobConfig) -> JobConfig:
    """Return a job with embeddings, of eight photographs in partitions of three."""
    write_photographs(Path(job.source), 8)
    return replace(job, partition_size=3, embeddings=True)


def embedded(out: object, captioner: str | None) -> dict[str, np.ndarray]:
    """Return the embeddings in OUT by hash."""
    batches = read_embeddings(OutFolder(out_path(str(out))), [captioner or ""])
    return {h: v for hashes, vs in batches for h, v in zip(hashes.to_pylist(), vs, strict=True)}


def hashes(out: object) -> set[str]:
    """Return the hashes of the images that have a caption."""
    table = read_table(Path(str(out))).to_pylist()
    return {row["image_sha256"] for row in table if row["status"] == "ok"}


def files(out: object) -> Sequence[Path]:
    return sorted(Path(str(out), "embeddings").iterdir())


def test_every_image_with_a_caption_has_an_embedding(job: JobConfig, tiny_checkpoint: Path) -> None:
    (Path(job.source) / "torn.jpg").write_bytes(b"")
    (Path(job.source) / "copy.jpg").write_bytes(photograph(0))
    # In bfloat16, the batch of an image matters too much for this small network.
    job = replace(job, precision="float32")
    report = run_job(job)
    vectors = embedded(job.out, report.captioner)
    assert set(vectors) == hashes(job.out)
    assert (report.images, len(vectors)) == (10, 8)
    captioner = Captioner.load(tiny_checkpoint, device="cpu", precision="float32")
    pixels = np.stack([decode_image(photograph(3), captioner.image_size).pixels])
    (expected,) = captioner.embed(captioner.encode(pixels))
    table = read_table(Path(job.out)).to_pylist()
    (sha256,) = (r["image_sha256"] for r in table if r["image_uri"].endswith("003.jpg"))
    assert expected.dtype == vectors[sha256].dtype == np.float16
    np.testing.assert_allclose(vectors[sha256], expected, atol=1e-3)
    for vector in vectors.values():
        assert abs(np.linalg.norm(vector.astype(float)) - 1) < 0.01
    assert run_job(job).planned == 0


def test_the_embeddings_are_a_table_of_their_own(job: JobConfig) -> None:
    report = run_job(job)
    table = ds.dataset(Path(job.out) / "embeddings").to_table()
    assert table.column_names == ["image_uri", "image_sha256", "captioner", "embedding"]
    assert set(table["captioner"].to_pylist()) == {report.captioner}
    assert len(set(table["image_uri"].to_pylist())) == 8


def test_a_run_without_the_option_writes_none(job: JobConfig) -> None:
    run_job(replace(job, embeddings=False))
    assert not (Path(job.out) / "embeddings").exists()


def test_missing_embeddings_are_completed_and_captions_stay(job: JobConfig) -> None:
    run_job(replace(job, embeddings=False))
    before = read_table(Path(job.out))["caption"].to_pylist()
    (Path(job.source) / "new.jpg").write_bytes(photograph(20))
    assert preview_job(job, sample=0).counts.lacking == 8
    report = run_job(job)
    assert (report.new, report.lacking, report.images) == (1, 8, 9)
    assert report.postponed == 0
    assert set(embedded(job.out, report.captioner)) == hashes(job.out)
    assert read_table(Path(job.out))["caption"].to_pylist()[:8] == before
    files(job.out)[0].unlink()
    lost = run_job(job).lacking
    assert 0 < lost < 9
    assert set(embedded(job.out, report.captioner)) == hashes(job.out)
    assert run_job(job).planned == 0


def test_a_limited_run_says_how_many_embeddings_it_leaves_for_later(job: JobConfig) -> None:
    run_job(replace(job, embeddings=False))
    report = run_job(replace(job, limit=3))
    assert (report.planned, report.postponed) == (3, 5)
    report = run_job(job)
    assert (report.lacking, report.planned, report.postponed) == (5, 5, 0)


def test_moved_and_changed_images_have_embeddings(job: JobConfig) -> None:
    run_job(job)
    source = Path(job.source)
    (source / "000.jpg").rename(source / "moved.jpg")
    (source / "001.jpg").write_bytes(photograph(30))
    report = run_job(replace(job, prune=True))
    assert (report.reused, report.images) == (1, 2)
    assert set(embedded(job.out, report.captioner)) >= hashes(job.out)
    assert len(hashes(job.out)) == 8


def test_a_caption_without_an_embedding_is_not_reused(job: JobConfig) -> None:
    run_job(replace(job, embeddings=False))
    source = Path(job.source)
    (source / "000.jpg").rename(source / "moved.jpg")
    report = run_job(replace(job, prune=True))
    assert (report.reused, report.lacking) == (0, 7)
    assert set(embedded(job.out, report.captioner)) == hashes(job.out)


def test_rows_of_another_captioner_stay_without(
    job: JobConfig, calibrated_checkpoint: Path
) -> None:
    run_job(replace(job, embeddings=False))
    other = replace(job, checkpoint=calibrated_checkpoint)
    assert run_job(other).planned == 0
    report = run_job(replace(other, stale="redo"))
    assert set(embedded(job.out, report.captioner)) == hashes(job.out)


def test_an_embedding_is_there_before_its_row(
    job: JobConfig, one_worker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = replace(job, scheduler=one_worker)

    def fail(*_: object, **__: object) -> None:
        raise OSError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(worker, "commit", fail)
        with pytest.raises(JobError, match="disk is full"):
            run_job(job)
    assert files(job.out)
    report = run_job(job)
    assert report.new == 8
    assert set(embedded(job.out, report.captioner)) == hashes(job.out)


def test_embeddings_are_written_whole(
    job: JobConfig, one_worker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = replace(job, scheduler=one_worker)

    def torn(*_: object, **__: object) -> None:
        raise OSError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(pq.ParquetWriter, "write_table", torn)
        with pytest.raises(JobError, match="disk is full"):
            run_job(job)
    assert not files(job.out)
    run_job(job)


def test_embeddings_are_written_to_a_store(store_job: JobConfig) -> None:
    report = run_job(replace(store_job, embeddings=True))
    found = {row["image_sha256"] for row in rows_on_store(store_job.out).values()}
    assert set(embedded(store_job.out, report.captioner)) == found
    assert run_job(replace(store_job, embeddings=True)).planned == 0


def test_a_killed_run_leaves_no_row_without_an_embedding(job: JobConfig) -> None:
    write_photographs(Path(job.source), 60)
    arguments = [job.source, "--out", job.out, "--checkpoint", job.checkpoint, "--embeddings"]
    more = ("--precision", "float32", "--workers", 1, "--quiet")  # as on a scheduler
    run = start("run", *arguments, "--partition-size", 2, *more)
    while run.poll() is None and not list(Path(job.out).glob("captions/*.parquet")):
        time.sleep(0.01)
    os.killpg(run.pid, signal.SIGKILL)
    run.communicate()
    (captioner,) = set(read_table(Path(job.out))["captioner"].to_pylist())
    assert hashes(job.out) <= set(embedded(job.out, captioner))
    assert run_job(job).lacking == 0
    assert set(embedded(job.out, captioner)) == hashes(job.out)
    assert len(hashes(job.out)) == 60
