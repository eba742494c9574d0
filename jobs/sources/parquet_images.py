"""Parquet files that hold the images themselves, in a column; the URI of one is `<file>#row=<n>`.

The column is a struct of `bytes` and `path`, as Hugging Face's datasets write it, or a binary one.
The URIs of images in a column that only the job's options choose end with `&column=<name>`.
Rows count from 0 in each file. Listing reads the other columns only, and the struct's `path`.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import groupby
from operator import attrgetter

import pyarrow as pa
import pyarrow.compute as pc

from captioner.jobs.errors import UsageError
from captioner.jobs.sources.manifests.parquet_files import ParquetFormat
from captioner.jobs.sources.manifests.streams import conform, read_or_refuse
from captioner.jobs.sources.manifests.tables import Rows, as_one_table, one_format, own_columns
from captioner.jobs.sources.options import SourceOptions
from captioner.jobs.sources.source import Batches, Scope, Source
from captioner.jobs.storage.containers import container_version
from captioner.jobs.storage.file_types import (
    container_of,
    image_column,
    is_binary,
    is_parquet,
    row_uri,
)
from captioner.jobs.storage.parquet.batches import plain_batches
from captioner.jobs.storage.parquet.open_file import open_parquet
from captioner.jobs.storage.signatures import without_signature
from captioner.jobs.storage.uris import image_uri, is_http, scheme_with_password
from captioner.schemas.caption_table import passthrough_names
from captioner.schemas.image_record import IMAGE_URI, MEMBER_TYPE, member_schema

LISTED_ROWS = 1000  # in a batch; their other columns may be long
LISTED_AHEAD = 64 * 1024  # bytes: what lies between the columns that are listed is the images


def holds_images(file: str, options: SourceOptions) -> bool:
    """Return whether a file is Parquet with a column of images, and not a manifest.

    UsageError if it cannot be read, or if several columns might hold the images.
    """
    if not is_parquet(file):
        return False
    schema = read_or_refuse(file, lambda: _arrow_schema(file))
    given = options.image_column
    is_manifest = (options.uri_column or IMAGE_URI) in schema.names and given not in schema.names
    return not is_manifest and image_column(file, schema, given) is not None


def parquet_image_source(
    files: Sequence[str], folder: str, covers: Scope, column: str | None = None
) -> Source:
    """Return the images in the rows of Parquet files, as one table.

    `column` names the one with the images where it has to be chosen. As in a manifest, columns and
    types are unified over the files, and the `key=value` folders below `folder` add columns.
    `covers(file)` returns whether the source includes a file. UsageError for a file that cannot be
    read or has no images.
    """
    one_format(files, folder)
    schema, rows = as_one_table(files, folder, _RowsFormat(column))
    target = member_schema(own_columns(column for column in schema if column.name != IMAGE_URI))

    def batches() -> Batches:
        for file, parts in groupby(rows, attrgetter("file")):
            container = image_uri(file)
            version = read_or_refuse(container, partial(container_version, container))
            place = {"container": container, "column": column}
            for part in parts:
                yield _with_members(part, place, version, target)

    return Source(target, batches(), scope=lambda uri: covers(container_of(uri)))


def _with_members(
    part: Rows, place: Mapping[str, str | None], version: str | None, schema: pa.Schema
) -> pa.RecordBatch:
    """Return image records for rows of a container, which count from 0."""
    batch = part.batch
    rows = range(part.first - 1, part.first - 1 + batch.num_rows)
    record = [
        batch.column(IMAGE_URI),
        pa.repeat(pa.scalar(version, pa.string()), len(rows)),
        pa.array([{**place, "offset": n, "size": 0} for n in rows], MEMBER_TYPE),
    ]
    return pa.record_batch([*record, *batch.drop_columns([IMAGE_URI]).columns], schema=schema)


class _RowsFormat(ParquetFormat):
    """Parquet files of images, read like a manifest that lists their rows."""

    def __init__(self, column: str | None) -> None:
        self._column = column

    def schema(self, path: str) -> pa.Schema:
        schema = _arrow_schema(path)
        if (image := image_column(path, schema, self._column)) is None:
            found = ", ".join(schema.names)
            raise UsageError(f"{path} has no column of images; its columns are: {found}")
        listed = [_free_of_uri(field) for field in _listed_fields(schema, image)]
        if _has_path(schema.field(image).type):
            name = passthrough_names([*(field.name for field in listed), "path"])[-1]
            listed.append(schema.field(image).type.field("path").with_name(name))
        return pa.schema([(IMAGE_URI, pa.string()), *listed])

    def batches(self, path: str, schema: pa.Schema) -> Batches:
        own, key = self.schema(path), without_signature(image_uri(path))
        with open_parquet(path, LISTED_AHEAD) as opened:
            image = str(image_column(path, opened.schema, self._column))
            chosen = _chosen(path, opened.schema, image)
            names = [field.name for field in _listed_fields(opened.schema, image)]
            with_path = len(own) > len(names) + 1
            leaves = [*names, f"{image}.path"] if with_path else names
            first = 0
            for batch in plain_batches(opened, LISTED_ROWS, leaves):
                columns = [batch.column(name) for name in names]
                if with_path:
                    columns.append(_unsigned(pc.struct_field(batch.column(image), "path"), path))
                uris = [row_uri(key, first + n, chosen) for n in range(batch.num_rows)]
                yield conform(pa.record_batch([uris, *columns], schema=own), schema)
                first += batch.num_rows


def _unsigned(paths: pa.Array, file: str) -> pa.Array:
    """Return what rows name without signatures; raise UsageError for one with a password."""
    names = paths.to_pylist()
    if any(isinstance(name, str) and scheme_with_password(name.strip()) for name in names):
        raise UsageError(f"{file} has paths of images with a password, which would be in OUT")
    return pa.array([_shown(name) for name in names], paths.type)


def _shown(name: object) -> object:
    """Return what a row names; blanks around a URL go, as they do when it is fetched."""
    is_url = isinstance(name, str) and is_http(name.strip())
    return without_signature(str(name).strip()) if is_url else name


def _chosen(file: str, schema: pa.Schema, image: str) -> str | None:
    """Return the column of images, or None if it is the one without any choice."""
    with suppress(UsageError):  # several columns might be it
        if image_column(file, schema) == image:
            return None
    return image


def _free_of_uri(column: pa.Field) -> pa.Field:
    """Return a column that is not named like the URI, with a name that leaves that free."""
    name = passthrough_names([IMAGE_URI])[0] if column.name == IMAGE_URI else column.name
    return column.with_name(name)


def _arrow_schema(file: str) -> pa.Schema:
    with open_parquet(file, LISTED_AHEAD) as opened:
        return opened.schema


def _listed_fields(schema: pa.Schema, image: str) -> list[pa.Field]:
    """Return the columns that are passed through: not bytes, such as masks and other frames."""
    return [field for field in schema if field.name != image and not _holds_bytes(field.type)]


def _holds_bytes(kind: pa.DataType) -> bool:
    """Return whether values, or parts of them, may have any number of bytes, unlike a hash."""
    if isinstance(kind, pa.BaseExtensionType):
        return _holds_bytes(kind.storage_type)
    parts = (kind.field(number).type for number in range(kind.num_fields))
    return is_binary(kind) or any(map(_holds_bytes, parts))


def _has_path(kind: pa.DataType) -> bool:
    """Return whether rows name images, too, in a column that can be passed through."""
    has_path = pa.types.is_struct(kind) and kind.get_field_index("path") >= 0
    return has_path and not _holds_bytes(kind.field("path").type)
