"""The caption table: Parquet files of one schema, with one row for each image."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from enum import StrEnum
from typing import TypedDict

import pyarrow as pa

from captioner.schemas.image_record import IMAGE_URI, IMAGE_VERSION, PLAN_COLUMNS

SCHEMA_VERSION = "5"
CAPTIONERS, REVIEW = b"captioners", b"review"  # keys of a file's metadata


class Status(StrEnum):
    """The outcome for an image: `ok`, or the reason why it has no caption."""

    OK = "ok"
    UNREADABLE = "unreadable"  # damaged, or no image at all
    UNSUPPORTED = "unsupported"  # a sound file of a format that is not opened
    TOO_LARGE = "too_large"  # more bytes or pixels than the limits allow
    OUT_OF_MEMORY = "out_of_memory"  # needed more memory than a worker has
    REJECTED = "rejected"  # got an answer that is no caption, or breaks the house rules
    NOT_FOUND = "not_found"
    DENIED = "denied"  # by the store or the file system
    REFUSED = "refused"  # a place that manifests may not name unless the job allows it
    TIMEOUT = "timeout"
    FETCH_FAILED = "fetch_failed"  # not fetched for any other reason
    CRASHED = "crashed"  # killed the process that opened it, or broke the captioner


class Alternative(TypedDict):
    """A caption that the search ranked lower."""

    caption: str
    log_prob: float | None


class WordConfidence(TypedDict):
    """A content word as the caption writes it, and the probability that it is right."""

    word: str
    confidence: float


class Former(TypedDict):
    """The caption of another captioner that a row's own one replaced; None if it had none."""

    caption: str | None
    confidence: float | None
    captioner: str


class Declined(TypedDict):
    """A later captioner that could not give a caption, so that the row stayed as it was."""

    captioner: str
    error: str


@dataclass(frozen=True)
class CaptionRow:
    """A row of the table; its fields are the columns, None where there is no value."""

    image_uri: str
    image_version: str | None
    status: Status
    captioner: str
    run_id: str
    annotated_at: datetime
    image_sha256: str | None = None
    width: int | None = None
    height: int | None = None
    format: str | None = None
    error: str | None = None
    caption: str | None = None
    confidence: float | None = None
    needs_review: bool | None = None
    word_confidence: Sequence[WordConfidence] | None = None
    log_prob: float | None = None
    token_log_probs: Sequence[float] | None = None
    alternatives: Sequence[Alternative] | None = None
    former: Former | None = None
    declined: Declined | None = None


_WORD = pa.struct([("word", pa.string()), ("confidence", pa.float32())])
_ALTERNATIVE = pa.struct([("caption", pa.string()), ("log_prob", pa.float32())])
_FORMER = pa.struct(
    [("caption", pa.string()), ("confidence", pa.float32()), ("captioner", pa.string())]
)
_DECLINED = pa.struct([("captioner", pa.string()), ("error", pa.string())])

_ADDED = {  # columns since version 4
    "former": _FORMER,
    "declined": _DECLINED,
    "word_confidence": pa.list_(_WORD),
}

_TABLE_SCHEMA = pa.schema(
    [
        pa.field(IMAGE_URI, pa.string(), nullable=False),
        pa.field(IMAGE_VERSION, pa.string()),
        pa.field("image_sha256", pa.string()),
        pa.field("width", pa.int32()),  # pixels, as displayed
        pa.field("height", pa.int32()),
        pa.field("format", pa.string()),
        pa.field("status", pa.dictionary(pa.int32(), pa.string()), nullable=False),
        pa.field("error", pa.string()),
        pa.field("caption", pa.string()),
        pa.field("confidence", pa.float32()),  # in [0, 1]
        pa.field("needs_review", pa.bool_()),  # null without a threshold
        pa.field("word_confidence", pa.list_(_WORD)),  # content words in their order
        pa.field("log_prob", pa.float32()),  # the sum over the caption's tokens
        pa.field("token_log_probs", pa.list_(pa.float32())),
        pa.field("alternatives", pa.list_(_ALTERNATIVE)),
        pa.field("captioner", pa.string(), nullable=False),
        pa.field("run_id", pa.string(), nullable=False),
        pa.field("annotated_at", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("former", _FORMER),
        pa.field("declined", _DECLINED),
    ]
)


CONTENT_COLUMNS = (  # that depend on the image's bytes alone, in a row with a caption
    *("width", "height", "format", "status", "caption", "confidence", "word_confidence"),
    *("log_prob", "token_log_probs", "alternatives"),
)


def caption_table_schema(passthrough: pa.Schema | None = None) -> pa.Schema:
    """Return the table's columns, followed by those that a manifest passes through."""
    return pa.schema([*_TABLE_SCHEMA, *(passthrough or ())])


def file_metadata(captioners: Mapping[str, object], review: object) -> dict[bytes, bytes]:
    """Return the metadata of a file of the table, as JSON.

    `captioners` has the settings and the calibration of each captioner, by its identity; `review`
    is the threshold of `needs_review`, or None.
    """
    return {
        b"schema_version": SCHEMA_VERSION.encode(),
        CAPTIONERS: json.dumps(captioners).encode(),
        REVIEW: json.dumps(review).encode(),
    }


def rows_to_table(
    rows: Sequence[CaptionRow], passthrough: pa.Table, metadata: Mapping[bytes, bytes]
) -> pa.Table:
    """Return rows and their manifest columns as one table; `metadata` is from `file_metadata`."""
    table = pa.table(
        {field.name: [getattr(row, field.name) for row in rows] for field in fields(CaptionRow)}
        | {name: passthrough.column(name) for name in passthrough.column_names},
        schema=caption_table_schema(passthrough.schema),
    )
    return table.replace_schema_metadata(dict(metadata))


def merged_schema(schemas: Sequence[pa.Schema]) -> pa.Schema:
    """Return the schema of a file that merges several: all columns but a plan's, all captioners.

    The columns have their `current_names`. Raise ArrowTypeError if two have different types.
    """
    plain = [schema.remove_metadata() for schema in schemas]
    merged = pa.unify_schemas([_renamed(schema, current_names(schema)) for schema in plain])
    metadata = [schema.metadata or {} for schema in schemas]
    captioners: dict[str, object] = {}
    for one in metadata:
        captioners |= json.loads(one.get(CAPTIONERS, b"{}"))
    reviews = [json.loads(one.get(REVIEW, b"null")) for one in metadata]
    latest = max(filter(None, reviews), key=lambda one: one.get("since") or "", default=None)
    columns = [column for column in merged if column.name not in PLAN_COLUMNS]
    return pa.schema(columns, file_metadata(captioners, latest))


def with_schema(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return a table with the columns of a schema, null where the table lacks them.

    The columns of a file of the table are known by their `current_names`.
    """
    table = table.rename_columns(current_names(table.schema))
    names = [name for name in schema.names if name in table.column_names]
    return pa.concat_tables([schema.empty_table(), table.select(names)], promote_options="default")


def current_names(schema: pa.Schema) -> list[str]:
    """Return what the columns of a file of the table are called now.

    A manifest's own column in an older file may have a name that the table has taken since, such as
    `former`: it is `source_former` now.
    """
    taken = {name.casefold() for name in schema.names}
    names: list[str] = []
    for field in schema:
        added = _ADDED.get(field.name.casefold())
        is_own = added is not None and _parts(field.type) != _parts(added)
        names.append(free_name(field.name, taken) if is_own else field.name)
        taken.add(names[-1].casefold())
    return names


def _parts(kind: pa.DataType) -> list[str]:
    """Return the names of the fields of structs, or of structs in lists."""
    if pa.types.is_list(kind):
        return ["[]", *_parts(kind.value_type)]
    return [part.name for part in kind] if pa.types.is_struct(kind) else []


def _renamed(schema: pa.Schema, names: Sequence[str]) -> pa.Schema:
    return pa.schema([field.with_name(name) for field, name in zip(schema, names, strict=True)])


def passthrough_names(names: Sequence[str]) -> list[str]:
    """Return names for manifest columns: `source_<name>` if a name is taken, ignoring case."""
    taken = {name.casefold() for name in (*_TABLE_SCHEMA.names, *PLAN_COLUMNS)}
    renamed: list[str] = []
    for name in names:
        renamed.append(free_name(name, taken))
        taken.add(renamed[-1].casefold())
    return renamed


def free_name(name: str, taken: Collection[str]) -> str:
    """Return `source_<name>`, or the name itself, that is not among casefolded names."""
    while name.casefold() in taken:
        name = f"source_{name}"
    return name
