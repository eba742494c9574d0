"""Opening Parquet files, on this machine or remote, after a look at their footers."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq

from captioner.jobs.storage.containers import BUFFER, READ_AHEAD, open_container
from captioner.jobs.storage.parquet.footer import MAX_CHUNKS, Chunk, read_footer
from captioner.jobs.storage.parquet.types import plain_schema
from captioner.jobs.storage.uris import is_local, local_path

MOST_BUFFERED = 256 * 1024 * 1024  # bytes
_BYTES = ("STRING", "NONE", "JSON", "BSON", "ENUM")  # types of values that are text or bytes


@dataclass(frozen=True)
class OpenFile:
    """A Parquet file, as Arrow reads it and as bytes.

    `schema` has plain types (types.py); what Arrow reads may have others. `shared` reads all text
    as dictionaries. `chunks` has the places of the columns of each row group.
    """

    arrow: pq.ParquetFile
    shared: pq.ParquetFile
    stream: IO[bytes]
    schema: pa.Schema
    chunks: list[list[Chunk]]

    def leaves(self, columns: list[str] | None) -> list[int]:
        """Return the numbers of the leaves in columns or parts of them, such as `image.path`."""
        schema = self.arrow.metadata.schema
        paths = [schema.column(number).path for number in range(len(schema))]
        if columns is None:
            return [*range(len(paths))]
        starts = tuple(f"{name}." for name in columns)
        return [n for n, path in enumerate(paths) if f"{path}.".startswith(starts)]


@contextmanager
def open_parquet(file: str, read_ahead: int = READ_AHEAD) -> Iterator[OpenFile]:
    """Open a Parquet file, whose columns are streamed, not read whole.

    Each has a buffer of BUFFER bytes, but together they have at most MOST_BUFFERED.
    ArrowInvalid for a damaged or encrypted file, and for one whose footer is beyond the limits.
    """
    with open_container(file, read_ahead) as stream:
        chunks = read_footer(stream)
        source = local_path(file) if is_local(file) else stream
        with pq.ParquetFile(source, thrift_container_size_limit=MAX_CHUNKS) as opened:
            metadata = opened.metadata
        texts = [column for column in _columns(metadata) if is_text(column)]
        in_lists = [column.path for column in texts if column.max_repetition_level]
        paths = [column.path for column in texts]
        buffer = min(BUFFER, MOST_BUFFERED // max(metadata.num_columns, 1))
        options = {"metadata": metadata, "buffer_size": buffer, "pre_buffer": False}
        with (
            pq.ParquetFile(source, read_dictionary=in_lists, **options) as arrow,
            pq.ParquetFile(source, read_dictionary=paths, **options) as shared,
        ):
            yield OpenFile(arrow, shared, stream, plain_schema(arrow.schema_arrow), chunks)


def _columns(metadata: pq.FileMetaData) -> list[pq.ColumnSchema]:
    return [metadata.schema.column(number) for number in range(len(metadata.schema))]


def is_text(column: pq.ColumnSchema) -> bool:
    """Return whether the values of a leaf are text or bytes of any length."""
    return column.physical_type == "BYTE_ARRAY" and column.logical_type.type in _BYTES
