"""Search by a photograph, and duplicates."""

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from captioner.jobs import JobConfig, run_job
from captioner.jobs.cli.main import main
from captioner.jobs.publish.find import alike, duplicates, pairs
from captioner.jobs.publish.find.index import update_index
from captioner.jobs.publish.find.pairs import similar_pairs
from captioner.jobs.storage.backends.paths import out_path
from captioner.jobs.table.layout import OutFolder
from tests.support.photographs import photograph, write_photographs
from tests.support.rows import decide, row, write_rows
from tests.support.servers import HttpServer


def compressed(number: int) -> bytes:
    """Return a photograph, compressed again: other bytes, the same picture."""
    file = io.BytesIO()
    Image.open(io.BytesIO(photograph(number))).save(file, "JPEG", quality=95)
    return file.getvalue()


@pytest.fixture
def job(job: JobConfig) -> JobConfig:
    """Return a job that has run, with copies among its photographs."""
    photos = write_photographs(Path(job.source), 8)
    (photos / "again.jpg").write_bytes(compressed(3))
    (photos / "copy.jpg").write_bytes(photograph(5))
    job = replace(job, embeddings=True, partition_size=4)
    run_job(job)
    return job


@pytest.fixture
def search(job: JobConfig, capsys: pytest.CaptureFixture[str]):
    """Return a function that searches, and returns the names of what it finds with their scores."""

    def found(image: object, *options: object) -> dict[str, float]:
        common = ["--checkpoint", job.checkpoint, "--json", *options]
        assert main(["search", "--like", *map(str, [image, job.out, *common])]) == 0
        images = json.loads(capsys.readouterr().out)
        scores = [image["score"] for image in images]
        assert scores == sorted(scores, reverse=True)
        return {Path(image["image_uri"]).stem: image["score"] for image in images}

    return found


def test_what_looks_alike_is_found(
    job: JobConfig, search, tmp_path: Path, http_server: HttpServer
) -> None:
    query = tmp_path / "query.jpg"
    query.write_bytes(photograph(3))
    found = search(query)
    assert len(found) == 10
    assert [*found][:2] == ["003", "again"]
    assert found["003"] > 0.99 and min(found.values()) < 0.95
    (http_server.folder / "q.jpg").write_bytes(photograph(5))
    assert set([*search(f"{http_server.url}/q.jpg")][:2]) == {"005", "copy"}
    assert [*search(Path(job.source) / "001.jpg", "--limit", 1)] == ["001"]


def test_conditions_and_decisions_hold_for_what_looks_alike(
    job: JobConfig, search, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alike, "LOOKED_UP", 2)
    photo = Path(job.source) / "003.jpg"
    decide(OutFolder(out_path(job.out)), str(photo), "edited", "Mine.", image_sha256=None)
    assert [*search(photo, "--where", "text = 'Mine.'")] == ["003"]
    assert [*search(photo, "--where", "decision IS NULL", "--limit", 1)] == ["again"]


def test_vanished_and_changed_images_are_not_found(job: JobConfig, search) -> None:
    photos = Path(job.source)
    (photos / "003.jpg").unlink()
    (photos / "again.jpg").write_bytes(photograph(30))
    run_job(replace(job, prune=True))
    query = photos.parent / "query.jpg"
    query.write_bytes(photograph(3))
    found = search(query)
    assert len(found) == 9 and "003" not in found
    assert max(found.values()) < 0.99


def test_what_cannot_be_compared_is_refused(
    job: JobConfig, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    photo, out, model = str(Path(job.source) / "001.jpg"), str(job.out), str(job.checkpoint)
    plain = write_rows(tmp_path / "plain", [row("/a.jpg")])
    (tmp_path / "torn.jpg").write_bytes(b"torn")
    for arguments, message in (
        (["--like", photo, out], "are by tiny@"),
        (["--like", photo, str(plain.root)], "has no embeddings: repeat its run"),
        (["--like", "/missing.jpg", out, "--checkpoint", model], "cannot read /missing.jpg"),
        (["--like", str(tmp_path / "torn.jpg"), out, "--checkpoint", model], "torn.jpg: "),
        ([out], "or --like IMAGE"),
        (["dog", out, "--like", photo], "or --like IMAGE"),
        (["dog", out, "--limit", "0"], "limit must be"),
    ):
        assert main(["search", *arguments]) == 2
        assert message in capsys.readouterr().err


def test_another_beam_does_not_matter(job: JobConfig, search) -> None:
    run_job(replace(job, beam_size=2, stale="redo"))
    assert len(search(Path(job.source) / "001.jpg")) == 10


def groups(out: object, capsys: pytest.CaptureFixture[str], *options: str) -> list[list[str]]:
    assert main(["duplicates", str(out), "--json", *options]) == 0
    found = json.loads(capsys.readouterr().out)
    return [[Path(uri).stem for uri in group["images"]] for group in found]


def test_duplicates_are_grouped(job: JobConfig, capsys: pytest.CaptureFixture[str]) -> None:
    assert groups(job.out, capsys) == [["003", "again"], ["005", "copy"]]
    assert groups(job.out, capsys, "--threshold", "1") == [["005", "copy"]]
    (everything,) = groups(job.out, capsys, "--threshold", "0.01")
    assert len(everything) == 10
    assert main(["duplicates", str(job.out)]) == 0
    assert "2 images, similarity 1.000" in capsys.readouterr().out
    assert main(["duplicates", str(job.out), "--threshold", "0"]) == 2


def test_without_embeddings_identical_bytes_are_grouped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [row(f"/{name}.jpg", image_sha256=name[0]) for name in ("a", "b1", "b2", "b3", "c")]
    out = write_rows(tmp_path, [*rows, row("/x.jpg", image_sha256=None, status="timeout")])
    assert groups(out.root, capsys) == [["b1", "b2", "b3"]]


def test_many_alike_and_chains_of_alike_images_make_a_group_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(0)
    angles = 0.3 * random.permutation(9)  # only neighbours reach the threshold
    chain = np.stack([np.cos(angles), np.sin(angles), *np.zeros((2, 9))], axis=1)
    frames = np.array([0, 0, 1, 0]) + random.normal(0, 0.01, (1_500, 4))
    vectors = np.concatenate([[[0, 0, 0, 1]], chain, frames])
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)
    rows = [row(f"/{n:04d}.jpg", image_sha256=str(n)) for n in range(len(vectors))]
    out = write_rows(tmp_path, rows)
    update_index(out, tmp_path / "i.sqlite", quiet=True)
    hashes = pa.array([each.image_sha256 for each in rows])
    monkeypatch.setattr(duplicates, "embedding_captioners", lambda _: ["a"])
    monkeypatch.setattr(duplicates, "read_embeddings", lambda *_: iter([(hashes, vectors)]))
    one, other = duplicates.find_duplicates(out, tmp_path / "i.sqlite", 0.9)
    assert one.images == [f"/{n:04d}.jpg" for n in range(10, 1_510)]
    assert other.images == [f"/{n:04d}.jpg" for n in range(1, 10)]
    assert other.similarity == pytest.approx(np.cos(0.3), abs=1e-3)
    everything = vectors[10:].astype(np.float32)
    assert one.similarity == pytest.approx((everything @ everything.T).min(), abs=1e-5)


@pytest.mark.parametrize("dense", [1, 100, 10_000])
@pytest.mark.parametrize("threshold", [0.5, 0.9, 0.99])
def test_all_similar_pairs_are_found_and_no_others(
    monkeypatch: pytest.MonkeyPatch, threshold: float, dense: int
) -> None:
    sizes = {"DIRECTIONS": 8, "SAMPLE": 50, "BLOCK": 64, "VERIFIED": 7, "DENSE": dense}
    for name, size in sizes.items():
        monkeypatch.setattr(pairs, name, size)
    random = np.random.default_rng(0)
    vectors = random.random((300, 40)) ** 3
    vectors[200:] = vectors[:100] + random.normal(0, 0.05, (100, 40))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)
    exact = vectors.astype(np.float32) @ vectors.astype(np.float32).T
    expected = {(i, j) for i, j in zip(*np.nonzero(exact >= threshold), strict=True) if i < j}
    found = [
        (i, j) for a, b, _ in similar_pairs(vectors, threshold) for i, j in zip(a, b, strict=True)
    ]
    assert len(found) == len(set(found))
    assert set(found) == expected
