"""Text files with one image per line."""

import pyarrow as pa

from captioner.jobs.sources.manifests.streams import conform, in_batches, text_lines
from captioner.jobs.sources.source import Batches
from captioner.schemas.image_record import IMAGE_URI

_SCHEMA = pa.schema([(IMAGE_URI, pa.string())])


class TextFormat:
    """Text files as manifests; blank lines do not count."""

    def schema(self, _path: str) -> pa.Schema:
        return _SCHEMA

    def common_type(self, _one: pa.DataType, _other: pa.DataType) -> pa.DataType:
        return pa.string()

    def batches(self, path: str, schema: pa.Schema) -> Batches:
        for part in in_batches(text_lines(path)):
            lines = [line for _, line in part]
            yield conform(pa.record_batch([lines], schema=_SCHEMA), schema)
