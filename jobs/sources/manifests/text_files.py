"""Text files with an image a line."""

from itertools import islice

import pyarrow as pa

from captioner.jobs.sources.manifests.streams import BATCH_ROWS, Batches, _lines, conform
from captioner.schemas.image_record import IMAGE_URI

# Text


def _text_schema(_: str) -> pa.Schema:
    return pa.schema([(IMAGE_URI, pa.string())])


def _text_batches(path: str, schema: pa.Schema) -> Batches:
    lines = (line for _, line in _lines(path))
    while part := list(islice(lines, BATCH_ROWS)):
        yield conform(pa.record_batch([part], schema=_text_schema(path)), schema)
