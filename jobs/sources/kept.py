"""A source that can be read twice."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from captioner.jobs.sources.source import Source

COMPRESSED = pa.ipc.IpcWriteOptions(compression="zstd")


def keep(source: Source, path: Path) -> tuple[Source, Source]:
    """Return a source that writes what is read of it to a file, and one that reads it from there.

    The second must be read after all of the first.
    """
    return replace(source, batches=_written(source, path)), replace(source, batches=_read(path))


def _written(source: Source, path: Path) -> Iterator[pa.RecordBatch]:
    with pa.ipc.new_file(str(path), source.schema, options=COMPRESSED) as file:
        for batch in source.batches:
            file.write_batch(batch)
            yield batch


def _read(path: Path) -> Iterator[pa.RecordBatch]:
    with pa.OSFile(str(path)) as stream:
        file = pa.ipc.open_file(stream)
        for number in range(file.num_record_batches):
            yield file.get_batch(number)
