"""The kinds of manifest, and how each is read: as a stream, in bounded memory, by path or URL.

CSV columns are text, so that "007" survives and the schema does not depend on the rows; an
empty field is null. JSONL values keep their type where a whole column has it, and are JSON text
where not. Parquet columns stay as they are. A text file has an image a line and no other column.
"""

from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa

from captioner.jobs.sources.manifests.csv_files import _csv_batches, _csv_schema
from captioner.jobs.sources.manifests.jsonl_files import (
    _json_batches,
    _json_common_type,
    _json_schema,
)
from captioner.jobs.sources.manifests.parquet_files import _parquet_batches, _parquet_schema
from captioner.jobs.sources.manifests.streams import Batches, _arrow_common_type
from captioner.jobs.sources.manifests.text_files import _text_batches, _text_schema


@dataclass(frozen=True)
class ManifestKind:
    """How manifests of one kind are read.

    `schema` gives the columns of a file; one without a value has the null type. `common_type`
    gives the type of a column that two files have differently, or raises ArrowException.
    `batches` gives a file's rows in the columns and types of a schema; those that the file does
    not have are null.
    """

    schema: Callable[[str], pa.Schema]
    common_type: Callable[[pa.DataType, pa.DataType], pa.DataType]
    batches: Callable[[str, pa.Schema], Batches]


def manifest_kind(name: str) -> ManifestKind | None:
    """The kind of manifest that a file name tells; None for what is no manifest's name."""
    name = name.lower()
    return next((kind for suffix, kind in _KINDS.items() if name.endswith(suffix)), None)


_CSV = ManifestKind(_csv_schema, _arrow_common_type, _csv_batches)
_JSONL = ManifestKind(_json_schema, _json_common_type, _json_batches)
PARQUET = ManifestKind(_parquet_schema, _arrow_common_type, _parquet_batches)
TEXT = ManifestKind(_text_schema, _arrow_common_type, _text_batches)
_GZIPPABLE = {".csv": _CSV, ".tsv": _CSV, ".jsonl": _JSONL, ".ndjson": _JSONL, ".txt": TEXT}
_KINDS = {
    **_GZIPPABLE,
    **{f"{suffix}.gz": kind for suffix, kind in _GZIPPABLE.items()},
    ".parquet": PARQUET,
}

MANIFEST_SUFFIXES = tuple(_KINDS)
