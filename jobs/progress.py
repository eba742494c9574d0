"""How far the listing of a source has come, on a terminal."""

from collections.abc import Iterator
from dataclasses import replace

import pyarrow as pa
from tqdm import tqdm

from jobs.source import Source


def with_progress(source: Source, quiet: bool) -> Source:
    """The same source, which counts the images found on stderr, if that is a terminal."""

    def batches() -> Iterator[pa.RecordBatch]:
        with tqdm(
            desc="listing", unit=" images", leave=False, disable=True if quiet else None
        ) as bar:
            for batch in source.batches:
                bar.update(batch.num_rows)
                yield batch

    return replace(source, batches=batches())
