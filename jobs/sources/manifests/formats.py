"""The formats of manifests, and the format of a file name.

CSV columns are text, so that "007" survives and the schema does not depend on the rows; an
empty field is null. JSONL values keep their type where a whole column has it, and become JSON text
where not. Parquet columns stay as they are. A text file has one image per line and no other column.
"""

from typing import Protocol

import pyarrow as pa

from captioner.jobs.sources.manifests.csv_files import CsvFormat
from captioner.jobs.sources.manifests.jsonl_files import JsonlFormat
from captioner.jobs.sources.manifests.parquet_files import ParquetFormat
from captioner.jobs.sources.manifests.text_files import TextFormat
from captioner.jobs.sources.source import Batches
from captioner.jobs.storage.file_types import manifest_suffix


class ManifestFormat(Protocol):
    """A format of manifests, which reads files as streams, in bounded memory, by path or URL."""

    def schema(self, path: str) -> pa.Schema:
        """Return the columns of a file; one without a value has the null type."""

    def common_type(self, one: pa.DataType, other: pa.DataType) -> pa.DataType:
        """Return a type for a column whose type differs between files, or raise ArrowException."""

    def batches(self, path: str, schema: pa.Schema) -> Batches:
        """Yield a file's rows with the columns and types of `schema`, null where it has none."""


TEXT = TextFormat()
_CSV, _JSONL = CsvFormat(), JsonlFormat()
_FORMATS: dict[str | None, ManifestFormat] = {
    ".csv": _CSV,
    ".tsv": _CSV,
    ".jsonl": _JSONL,
    ".ndjson": _JSONL,
    ".txt": TEXT,
    ".parquet": ParquetFormat(),
}


def format_of(name: str) -> ManifestFormat | None:
    """Return the format of a manifest by its file name; None if it is not a manifest's name."""
    return _FORMATS.get(manifest_suffix(name))
