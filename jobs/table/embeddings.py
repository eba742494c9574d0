"""OUT/embeddings/*.parquet: vectors that say what images look like, by the bytes of the images.

An embedding belongs to an image's bytes (`image_sha256`) and to a captioner, so it stays true when
files are moved, copied or changed; `image_uri` is one image with these bytes. A worker writes the
embeddings of a part before its rows: whoever finds a row of such a run finds its embedding, too.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from captioner.jobs.table.commits.commit import write_whole
from captioner.jobs.table.layout import OutFolder, RunFolder
from captioner.jobs.table.read import closing, column_batches, opened_files
from captioner.schemas.caption_table import CAPTIONERS, CaptionRow

BATCH_ROWS = 4096  # 10 MB of embeddings
CHUNK = 4_000_000  # hashes that are sorted in memory at once
Hashes = npt.NDArray[np.uint64]
Vectors = npt.NDArray[np.float16]  # of unit length [N, C]
_KEYS = (pa.field("image_uri", pa.string()), pa.field("image_sha256", pa.string()))
_CAPTIONER, _EMBEDDING = "captioner", "embedding"


class ImageHashes:
    """A set of images, by SHA-256.

    They are 64-bit hashes of those hashes, sorted in files of `folder`, so memory stays bounded.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._chunks = folder, list[Hashes]()
        self._waiting: list[Hashes] = []

    def add(self, hashes: pa.Array) -> None:
        """Add images."""
        self._waiting.append(_hashed(hashes))
        if sum(map(len, self._waiting)) >= CHUNK:
            self._keep()

    def _keep(self) -> None:
        if any(map(len, self._waiting)):
            path = self._folder / f"hashes-{len(self._chunks)}.npy"
            np.save(path, np.sort(np.concatenate(self._waiting)))
            self._chunks.append(np.load(path, mmap_mode="r"))
        self._waiting = []

    def contain(self, hashes: pa.Array) -> pa.Array:
        """Return which images are in the set: bool [N]."""
        self._keep()
        wanted = _hashed(hashes)
        found = np.zeros(len(wanted), bool)
        for chunk in self._chunks:
            places = np.minimum(chunk.searchsorted(wanted), len(chunk) - 1)
            found |= chunk[places] == wanted
        return pa.array(found)


class EmbeddedHashes(ImageHashes):
    """The images that have an embedding by a captioner."""

    def __init__(self, out: OutFolder, captioner: str, folder: Path) -> None:
        super().__init__(folder)
        for batch in _batches(out, ["image_sha256", _CAPTIONER]):
            own = batch.filter(pc.equal(batch[_CAPTIONER], captioner))
            self.add(own["image_sha256"])


def commit_embeddings(
    run: RunFolder,
    name: str,
    rows: Sequence[CaptionRow],
    vectors: Mapping[str, Vectors],
    metadata: Mapping[bytes, bytes],
) -> None:
    """Write the embeddings of part `name`, whole: the `vectors` by hash, of images in `rows`.

    A later file with the same hashes does no harm, so no right to write is needed. Raise OSError if
    the file cannot be written.
    """
    first = {row.image_sha256: row for row in reversed(rows)}
    images = [first[sha256] for sha256 in vectors]
    flat = pa.array(np.concatenate(list(vectors.values())))
    width = len(flat) // len(images)
    table = pa.table(
        [
            [image.image_uri for image in images],
            [image.image_sha256 for image in images],
            [image.captioner for image in images],
            pa.FixedSizeListArray.from_arrays(flat, width),
        ],
        schema=_schema(width, metadata),
    )
    run.storage.make_folder(run.out.embeddings)
    path = run.out.embeddings / run.part(name).name
    with run.storage.work_folder(run.scratch) as folder:
        write_whole([table], table.schema, path, folder, nullcontext())


def embedding_captioners(out: OutFolder) -> dict[str, Mapping[str, object]]:
    """Return the captioners whose embeddings OUT has, with their settings, by identity."""
    captioners: dict[str, Mapping[str, object]] = {}
    for _, file in opened_files(out.storage.files(out.embeddings, "*.parquet")):
        with closing(file):
            metadata = file.schema_arrow.metadata or {}
            captioners |= json.loads(metadata.get(CAPTIONERS, b"{}"))
    return captioners


def read_embeddings(
    out: OutFolder, captioners: Sequence[str]
) -> Iterator[tuple[pa.Array, Vectors]]:
    """Yield hashes [N] and embeddings [N, C] by these captioners, in bounded memory.

    An image may come more than once.
    """
    wanted = pa.array(captioners, pa.string())
    for batch in _batches(out, ["image_sha256", _CAPTIONER, _EMBEDDING]):
        own = batch.filter(pc.is_in(batch[_CAPTIONER], wanted))
        if len(own):
            flat = own[_EMBEDDING].flatten().to_numpy()
            yield own["image_sha256"], flat.reshape(len(own), -1)


def _schema(width: int, metadata: Mapping[bytes, bytes]) -> pa.Schema:
    captioner = pa.field(_CAPTIONER, pa.string())
    embedding = pa.field(_EMBEDDING, pa.list_(pa.float16(), width))
    return pa.schema([*_KEYS, captioner, embedding], {CAPTIONERS: metadata[CAPTIONERS]})


def _batches(out: OutFolder, columns: list[str]) -> Iterator[pa.RecordBatch]:
    for path, file in opened_files(out.storage.files(out.embeddings, "*.parquet")):
        yield from column_batches(path, file, columns, BATCH_ROWS)


def _hashed(hashes: pa.Array) -> Hashes:
    import pandas as pd  # here, because it takes a fifth of a second, and few workers need it

    texts = hashes.fill_null("").to_numpy(zero_copy_only=False)
    return pd.util.hash_array(texts, categorize=False)
