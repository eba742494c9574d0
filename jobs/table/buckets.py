"""Rows on disk in buckets, by a hash of their URI."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from captioner.schemas.image_record import IMAGE_URI

BUCKETS = 256  # about 40,000 rows each for 10 million
BUCKET_ROWS = 40_000  # several buckets of a smaller table are read at once
SPILL_ROWS = 400_000  # in memory at once


class Buckets:
    """Rows by bucket, in an Arrow file with one batch for each bucket in turn."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.path, self._schema = path, schema
        options = pa.ipc.IpcWriteOptions(compression="lz4")
        self._writer = pa.ipc.new_file(str(path), schema, options=options)
        self._waiting: list[pa.RecordBatch] = []
        self.rows = self._spilled = 0

    def add(self, columns: Sequence[pa.Array]) -> None:
        """Add rows, as columns of the schema."""
        batch = pa.record_batch(columns, schema=self._schema)
        self._waiting.append(batch)
        self.rows += batch.num_rows
        if self.rows - self._spilled >= SPILL_ROWS:
            self._spill()

    def _spill(self) -> None:
        rows = pa.Table.from_batches(self._waiting, self._schema)
        uris = rows[IMAGE_URI].to_numpy()
        buckets = pd.util.hash_array(uris, categorize=False) % BUCKETS
        order = np.argsort(buckets, kind="stable")
        ends = np.searchsorted(buckets[order], np.arange(BUCKETS), side="right")
        sorted_rows = rows.take(pa.array(order)).combine_chunks()
        for start, end in zip([0, *ends[:-1]], ends, strict=True):
            self._writer.write_batch(_one_batch(sorted_rows.slice(start, end - start)))
        self._waiting, self._spilled = [], self.rows

    def read(self, together: int) -> Iterator[pa.Table]:
        """Yield the rows, `together` buckets at a time, in the order in which they were added.

        No rows can be added afterwards.
        """
        self._spill()
        self._writer.close()
        with pa.OSFile(str(self.path)) as file:
            reader = pa.ipc.open_file(file)
            for first in range(0, BUCKETS, together):
                buckets = range(first, min(first + together, BUCKETS))
                batches = [
                    reader.get_batch(number)
                    for bucket in buckets
                    for number in range(bucket, reader.num_record_batches, BUCKETS)
                ]
                yield pa.Table.from_batches(batches, self._schema)


def buckets_together(rows: int) -> int:
    """Return how many buckets to read at once, so that they have about BUCKET_ROWS rows."""
    return max(1, BUCKETS * BUCKET_ROWS // max(rows, BUCKET_ROWS))


def _one_batch(rows: pa.Table) -> pa.RecordBatch:
    batches = rows.to_batches()
    return batches[0] if batches else pa.RecordBatch.from_pylist([], rows.schema)
