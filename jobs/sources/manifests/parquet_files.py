"""Parquet manifests."""

import pyarrow as pa

from captioner.jobs.sources.manifests.streams import BATCH_ROWS, Batches, conform
from captioner.jobs.storage.containers import open_parquet

# Parquet


def _parquet_schema(path: str) -> pa.Schema:
    with open_parquet(path) as file:
        return file.schema_arrow


def _parquet_batches(path: str, schema: pa.Schema) -> Batches:
    # Not by pyarrow.dataset, which decodes whole row groups ahead of their use.
    with open_parquet(path) as file:
        for batch in file.iter_batches(BATCH_ROWS):
            yield conform(batch, schema)
