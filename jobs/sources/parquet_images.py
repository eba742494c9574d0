"""Parquet files that hold the images themselves, in a column; the URI of one is `<file>#row=<n>`.

The column is a struct of `bytes` and `path`, as Hugging Face's datasets write it, or a binary one.
Rows count from 0 in each file. Listing reads the other columns only, and the struct's `path`.
"""

from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter

import pyarrow as pa
import pyarrow.compute as pc

from captioner.jobs.errors import FetchError, UsageError
from captioner.jobs.sources.manifests.formats import PARQUET, ManifestKind
from captioner.jobs.sources.manifests.manifest import as_one_table, one_kind, own_columns, readable
from captioner.jobs.sources.manifests.streams import Batches, conform
from captioner.jobs.storage.containers import BUFFER, container_version, open_parquet
from captioner.jobs.storage.failures import check_final
from captioner.jobs.storage.file_types import image_column, is_binary, is_parquet
from captioner.jobs.storage.uris import image_uri
from captioner.schemas.caption_table import passthrough_names
from captioner.schemas.image_record import IMAGE_URI, MEMBER_TYPE, member_schema

LISTED_ROWS = 1000  # at once
LISTED_AHEAD = 64 * 1024  # bytes: what lies between the columns that are listed is the images


def holds_images(file: str) -> bool:
    """Whether a file is Parquet with a column of images, and no manifest.

    UsageError if it cannot be read, or if several columns might be that of the images.
    """
    if not is_parquet(file):
        return False
    schema = readable(file, lambda: _arrow_schema(file))
    return IMAGE_URI not in schema.names and image_column(file, schema) is not None


def parquet_image_records(files: Sequence[str], folder: str) -> tuple[pa.Schema, Batches]:
    """The schema and the batches of the images in files, as one table.

    As in a manifest, columns and types are unified over the files, and the `key=value` folders
    below `folder` are columns. UsageError for a file that cannot be read or has no images.
    """
    one_kind(files, folder)
    schema, rows = as_one_table(files, folder, _KIND)
    target = member_schema(own_columns(column for column in schema if column.name != IMAGE_URI))

    def all_batches() -> Batches:
        for file, parts in groupby(rows, itemgetter(0)):
            container = image_uri(file)
            version = _version(container)
            for _, batch in parts:
                yield _record_batch(container, version, batch, target)

    return target, all_batches()


def _version(container: str) -> str | None:
    try:
        return container_version(container)
    except FetchError as error:
        check_final(container, error)
        raise UsageError(f"cannot read {container}: {error}") from error


def _record_batch(
    container: str, version: str | None, batch: pa.RecordBatch, schema: pa.Schema
) -> pa.RecordBatch:
    rows = batch.column(IMAGE_URI).to_pylist()
    members = [{"container": container, "offset": int(row), "size": 0} for row in rows]
    record = [
        pa.array([f"{container}#row={row}" for row in rows], pa.string()),
        pa.repeat(pa.scalar(version, pa.string()), len(rows)),
        pa.array(members, MEMBER_TYPE),
    ]
    return pa.record_batch([*record, *batch.drop_columns([IMAGE_URI]).columns], schema=schema)


def _arrow_schema(file: str) -> pa.Schema:
    with open_parquet(file, BUFFER, LISTED_AHEAD) as opened:
        return opened.schema_arrow


# Listing: the rows without the images, whose numbers are in the column image_uri.


def _listed_schema(file: str) -> pa.Schema:
    schema = _arrow_schema(file)
    if (image := image_column(file, schema)) is None:
        found = ", ".join(schema.names)
        raise UsageError(f"{file} has no column of images; its columns are: {found}")
    listed = _listed_fields(schema, image)
    if _has_path(schema.field(image).type):
        name = passthrough_names([*(field.name for field in listed), "path"])[-1]
        listed.append(schema.field(image).type.field("path").with_name(name))
    return pa.schema([(IMAGE_URI, pa.string()), *listed])


def _listed_fields(schema: pa.Schema, image: str) -> list[pa.Field]:
    """The columns that are passed through: bytes, such as masks and other frames, are not."""
    return [field for field in schema if field.name != image and not _holds_bytes(field.type)]


def _holds_bytes(kind: pa.DataType) -> bool:
    """Whether values, or parts of them, may be any number of bytes: a hash may not."""
    if isinstance(kind, pa.BaseExtensionType):
        return _holds_bytes(kind.storage_type)
    if pa.types.is_dictionary(kind):
        return _holds_bytes(kind.value_type)
    parts = (kind.field(number).type for number in range(kind.num_fields))
    return is_binary(kind) or pa.types.is_binary_view(kind) or any(map(_holds_bytes, parts))


def _has_path(kind: pa.DataType) -> bool:
    return pa.types.is_struct(kind) and kind.get_field_index("path") >= 0


def _listed_batches(file: str, schema: pa.Schema) -> Batches:
    own = _listed_schema(file)
    with open_parquet(file, BUFFER, LISTED_AHEAD) as opened:
        image = image_column(file, opened.schema_arrow)
        names = [field.name for field in _listed_fields(opened.schema_arrow, str(image))]
        with_path = len(own) > len(names) + 1
        leaves = [*names, f"{image}.path"] if with_path else names
        row = 0
        for batch in opened.iter_batches(LISTED_ROWS, columns=leaves):
            columns = [batch.column(name) for name in names]
            columns += [pc.struct_field(batch.column(image), "path")] if with_path else []
            numbers = pa.array([str(row + n) for n in range(batch.num_rows)], pa.string())
            yield conform(pa.record_batch([numbers, *columns], schema=own), schema)
            row += batch.num_rows


_KIND = ManifestKind(_listed_schema, PARQUET.common_type, _listed_batches)
