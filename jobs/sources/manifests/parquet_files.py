"""Parquet manifests."""

import pyarrow as pa

from captioner.jobs.sources.manifests.streams import conform
from captioner.jobs.sources.source import BATCH_ROWS, Batches
from captioner.jobs.storage.containers import BUFFER
from captioner.jobs.storage.parquet.batches import plain_batches
from captioner.jobs.storage.parquet.open_file import open_parquet


class ParquetFormat:
    """Parquet files as manifests, whose columns keep their types."""

    def schema(self, path: str) -> pa.Schema:
        with open_parquet(path, BUFFER) as file:
            return file.schema

    def common_type(self, one: pa.DataType, other: pa.DataType) -> pa.DataType:
        schemas = [pa.schema([("column", kind)]) for kind in (one, other)]
        return pa.unify_schemas(schemas, promote_options="permissive").field(0).type

    def batches(self, path: str, schema: pa.Schema) -> Batches:
        with open_parquet(path, BUFFER) as file:  # columns take turns: not far ahead
            for batch in plain_batches(file, BATCH_ROWS):
                yield conform(batch, schema)
