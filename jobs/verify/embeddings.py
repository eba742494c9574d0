"""OUT/embeddings: its files read whole, and belong to images of the table."""

import json
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from captioner.jobs.messages import how_many
from captioner.jobs.storage.backends.backend import is_store, open_ahead
from captioner.jobs.storage.backends.paths import OutPath
from captioner.jobs.table.embeddings import BATCH_ROWS, ImageHashes
from captioner.jobs.table.layout import OutFolder
from captioner.jobs.table.read import closing
from captioner.jobs.verify.files import Rows
from captioner.jobs.verify.findings import Kind, Scope
from captioner.schemas.caption_table import CAPTIONERS

_COLUMNS = ("image_uri", "image_sha256", "captioner", "embedding")
_REMEDY = "remove it: `captioner run --embeddings` makes what is missing; --repair does so"
_WRONG = "--repair removes what is wrong; `captioner run --embeddings` makes what is missing"
_REST = "this does no harm; --repair tidies up"
LENGTH = 0.02  # by which the length of a vector of float16 may differ from 1


class Embedded:
    """The images of the table, to find embeddings of others."""

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self._images = ImageHashes(scope.scratch)

    def add(self, rows: Rows) -> None:
        """Add the images of rows."""
        self._images.add(rows.table["image_sha256"].combine_chunks())

    def has_image(self, batch: pa.RecordBatch) -> pa.Array:
        """Return which embeddings are of images of the table: bool [N]."""
        return self._images.contain(batch["image_sha256"])

    def check(self) -> None:
        """Find files that cannot be read, wrong vectors, and embeddings of no image."""
        out = self._scope.out
        for path in out.storage.files(out.embeddings, "*"):
            if path.name and not path.name.endswith(".parquet"):
                what, remedy = "is no file of embeddings", "move it elsewhere"
                self._scope.harmless(Kind.EMBEDDING, path, what, remedy)
        for path in embedding_files(out):
            with self._scope.reading(Kind.EMBEDDING, path, _REMEDY):
                self._check_file(path)

    def _check_file(self, path: OutPath) -> None:
        wrong = orphans = 0
        for batch in embedding_batches(path):
            wrong += pc.sum(pc.invert(are_right(batch["embedding"]))).as_py() or 0
            orphans += len(batch) - pc.sum(self.has_image(batch)).as_py()
        if wrong:
            what = f"has {how_many(wrong, 'vector')} whose length is not 1"
            self._scope.fault(Kind.EMBEDDING, path, what, _WRONG)
        if orphans and not self._scope.is_partial:
            what = f"has {how_many(orphans, 'embedding')} whose image is not in the table any more"
            self._scope.harmless(Kind.EMBEDDING, path, what, _REST)


def embedding_files(out: OutFolder) -> list[OutPath]:
    """List the files of embeddings."""
    return [*out.storage.files(out.embeddings, "*.parquet")]


def embedding_batches(path: OutPath) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a file of embeddings; raise ValueError if it is another file."""
    ((_, opened),) = open_ahead([path])
    with closing(
        pq.ParquetFile(opened(), pre_buffer=is_store(path), page_checksum_verification=True)
    ) as file:
        names = tuple(file.schema_arrow.names)
        if names != _COLUMNS or not pa.types.is_fixed_size_list(file.schema_arrow.types[-1]):
            raise ValueError(f"it has other columns: {', '.join(names)}")
        json.loads((file.schema_arrow.metadata or {})[CAPTIONERS])
        for batch in file.iter_batches(BATCH_ROWS):
            batch.validate(full=True)
            yield batch


def are_right(vectors: pa.FixedSizeListArray) -> pa.Array:
    """Return which vectors have the length 1, as those of a captioner: bool [N]."""
    flat = vectors.flatten().to_numpy(zero_copy_only=False).astype(np.float32)
    lengths = np.linalg.norm(flat.reshape(len(vectors), -1), axis=1)
    return pa.array(np.abs(lengths - 1) < LENGTH)
