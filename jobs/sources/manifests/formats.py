"""The formats of manifests, and the format of a file name.

CSV columns are text, so that "007" survives and the schema does not depend on the rows; an
empty field is null. JSONL values keep their type where a whole column has it, and become JSON text
where not. Parquet columns stay as they are. A text file has one image per line and no other column.
"""

from collections.abc import Mapping
from typing import Protocol

import pyarrow as pa

from captioner.jobs.errors import UsageError
from captioner.jobs.sources.manifests.csv_files import CsvFormat
from captioner.jobs.sources.manifests.jsonl_files import JsonlFormat
from captioner.jobs.sources.manifests.parquet_files import ParquetFormat
from captioner.jobs.sources.manifests.text_files import TextFormat
from captioner.jobs.sources.source import Batches
from captioner.jobs.storage.file_types import manifest_suffix
from captioner.schemas.caption_table import passthrough_names
from captioner.schemas.image_record import IMAGE_URI


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


class WithUriColumn:
    """A format whose files name their images in another column, which is read as `image_uri`.

    A column that is named `image_uri` itself becomes `source_image_uri`.
    """

    def __init__(self, file_format: ManifestFormat, column: str) -> None:
        is_json = isinstance(file_format, JsonlFormat)
        self._format = JsonlFormat(column) if is_json else file_format
        self._column = column
        self._names = {column: IMAGE_URI, IMAGE_URI: passthrough_names([IMAGE_URI])[0]}
        self._own_names = {name: own for own, name in self._names.items()}

    def schema(self, path: str) -> pa.Schema:
        schema = self._format.schema(path)
        if self._column not in schema.names:
            found = ", ".join(schema.names)
            raise UsageError(f"{path} has no column {self._column}; its columns are: {found}")
        return _renamed(schema, self._names)

    def common_type(self, one: pa.DataType, other: pa.DataType) -> pa.DataType:
        return self._format.common_type(one, other)

    def batches(self, path: str, schema: pa.Schema) -> Batches:
        for batch in self._format.batches(path, _renamed(schema, self._own_names)):
            yield pa.record_batch(batch.columns, schema=schema)


def _renamed(schema: pa.Schema, names: Mapping[str, str]) -> pa.Schema:
    return pa.schema([column.with_name(names.get(column.name, column.name)) for column in schema])


def format_of(name: str) -> ManifestFormat | None:
    """Return the format of a manifest by its file name; None if it is not a manifest's name."""
    return _FORMATS.get(manifest_suffix(name))
