"""Embeddings on disk, without a model."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from captioner.jobs.errors import UsageError
from captioner.jobs.storage.backends.paths import out_path
from captioner.jobs.table import embeddings as embeddings_module
from captioner.jobs.table.embeddings import (
    EmbeddedHashes,
    commit_embeddings,
    embedding_captioners,
    read_embeddings,
)
from captioner.jobs.table.layout import OutFolder
from captioner.schemas.caption_table import file_metadata
from tests.support.rows import CAPTIONER, row

METADATA = file_metadata({CAPTIONER: {"search": {}}}, None)


def commit(out: OutFolder, name: str, vectors: dict[str, float]) -> None:
    """Write embeddings of four equal numbers, for images with these hashes."""
    run = out.new_run()
    run.create()
    rows = [row(f"/{sha256}.jpg", image_sha256=sha256) for sha256 in vectors for _ in "12"]
    arrays = {sha256: np.full(4, value, np.float16) for sha256, value in vectors.items()}
    commit_embeddings(run, name, rows, arrays, METADATA)


@pytest.fixture
def out(tmp_path: Path) -> OutFolder:
    return OutFolder(out_path(tmp_path / "out"))


def test_embeddings_are_read_as_they_were_written(out: OutFolder) -> None:
    commit(out, "0", {"b": 0.5, "a": 0.25})
    commit(out, "1", {"c": 0.125})
    read = {
        sha256: vector.tolist()
        for hashes, vectors in read_embeddings(out, [CAPTIONER])
        for sha256, vector in zip(hashes.to_pylist(), vectors, strict=True)
    }
    assert read == {"b": [0.5] * 4, "a": [0.25] * 4, "c": [0.125] * 4}
    assert not list(read_embeddings(out, ["another"]))
    assert embedding_captioners(out) == {CAPTIONER: {"search": {}}}


@pytest.mark.parametrize("chunk", [1, 3, 4_000_000])
def test_images_with_an_embedding_are_known(
    out: OutFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr(embeddings_module, "CHUNK", chunk)
    for number in range(5):
        commit(out, str(number), {f"{number}-{n}": 0.5 for n in range(3)})
    embedded = EmbeddedHashes(out, CAPTIONER, tmp_path)
    hashes = pa.array(["0-0", None, "4-2", "4-3", "2-1", ""])
    assert embedded.contain(hashes).to_pylist() == [True, False, True, False, True, False]
    assert embedded.contain(pa.array([], pa.string())).to_pylist() == []
    others = EmbeddedHashes(out, "another", tmp_path)
    assert not any(others.contain(hashes).to_pylist())


def test_an_out_without_embeddings_has_none(out: OutFolder, tmp_path: Path) -> None:
    assert not EmbeddedHashes(out, CAPTIONER, tmp_path).contain(pa.array(["a"])).to_pylist()[0]
    assert embedding_captioners(out) == {}


def test_a_foreign_file_is_refused(out: OutFolder, tmp_path: Path) -> None:
    out.embeddings.mkdir(parents=True)
    pq.write_table(pa.table({"x": [1]}), out.embeddings / "mine.parquet")
    with pytest.raises(UsageError, match=r"mine\.parquet"):
        EmbeddedHashes(out, CAPTIONER, tmp_path)
