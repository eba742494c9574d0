"""Rows on disk, by a hash of their URI."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from captioner.schemas.image_record import IMAGE_URI

BUCKETS = 256  # of 10 million rows, each has about 40,000
BUCKET_ROWS = 40_000  # of a smaller table, several buckets are compared at once
SPILL_ROWS = 400_000  # in memory at once


class Buckets:
    """Rows on disk by bucket: an Arrow file with a batch for each bucket in turn."""

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
        """The rows of each bucket, in the order they were added, some buckets together.

        Nothing can be added any more.
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


def _one_batch(rows: pa.Table) -> pa.RecordBatch:
    batches = rows.to_batches()
    return batches[0] if batches else pa.RecordBatch.from_pylist([], rows.schema)
