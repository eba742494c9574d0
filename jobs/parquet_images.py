"""Parquet files that hold the images themselves, in a column; the URI of one is `<file>#row=<n>`.

The column is a struct of `bytes` and `path`, as Hugging Face's datasets write it, or a binary one.
Rows count from 0 in each file. Listing reads the other columns only, and the struct's `path`.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import accumulate, groupby
from operator import itemgetter

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from jobs.containers import (
    BUFFER,
    check_final,
    container_version,
    fetched,
    is_parquet,
    open_parquet,
)
from jobs.errors import FetchError, UsageError
from jobs.fetch import too_large
from jobs.manifest import as_one_table, one_kind, own_columns, readable
from jobs.manifest_kinds import PARQUET, Batches, ManifestKind, conform
from jobs.uris import image_uri
from schemas.caption_table import Status, passthrough_names
from schemas.image_record import IMAGE_URI, MEMBER_TYPE, Member, member_schema

LISTED_ROWS = 1000  # at once
LISTED_AHEAD = 64 * 1024  # bytes: what lies between the columns that are listed is the images
READ_ROWS = 8  # at once, an image each
IMAGE = "image"  # the column's name that decides between several


def holds_images(file: str) -> bool:
    """Whether a file is Parquet with a column of images, and no manifest.

    UsageError if it cannot be read, or if several columns might be that of the images.
    """
    if not is_parquet(file):
        return False
    schema = readable(file, lambda: _arrow_schema(file))
    return IMAGE_URI not in schema.names and _image_column(file, schema) is not None


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


def _image_column(file: str, schema: pa.Schema) -> str | None:
    """The column of the images; None without one, UsageError if it might be several."""
    structs = [field.name for field in schema if _is_image_struct(field.type)]
    binaries = [field.name for field in schema if _is_binary(field.type)]
    candidates = structs + binaries
    if IMAGE in candidates:
        return IMAGE
    if len(structs) == 1 or len(candidates) <= 1:
        return next(iter(candidates), None)
    names = ", ".join(candidates)
    raise UsageError(f"{file} has several columns of bytes: {names}; name that of images {IMAGE}")


def _is_image_struct(kind: pa.DataType) -> bool:
    if not pa.types.is_struct(kind) or kind.get_field_index("bytes") < 0:
        return False
    return _is_binary(kind.field("bytes").type)


def _is_binary(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


# Listing: the rows without the images, whose numbers are in the column image_uri.


def _listed_schema(file: str) -> pa.Schema:
    schema = _arrow_schema(file)
    if (image := _image_column(file, schema)) is None:
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
    return _is_binary(kind) or pa.types.is_binary_view(kind) or any(map(_holds_bytes, parts))


def _has_path(kind: pa.DataType) -> bool:
    return pa.types.is_struct(kind) and kind.get_field_index("path") >= 0


def _listed_batches(file: str, schema: pa.Schema) -> Batches:
    own = _listed_schema(file)
    with open_parquet(file, BUFFER, LISTED_AHEAD) as opened:
        image = _image_column(file, opened.schema_arrow)
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


# Reading: the images of some rows.


@contextmanager
def open_rows(container: str, max_bytes: int) -> Iterator[Callable[[Member], bytes]]:
    """A function that gives the bytes of a row; fast for rows in their order."""
    with open_parquet(container, BUFFER) as file:
        yield _Rows(container, file, max_bytes).read


class _Rows:
    """The image column of a file: of the row groups asked for, a few rows at a time in memory."""

    def __init__(self, container: str, file: pq.ParquetFile, max_bytes: int) -> None:
        schema = file.schema_arrow
        self.image = str(_image_column(container, schema))
        is_struct = _is_image_struct(schema.field(self.image).type)
        self.leaf = f"{self.image}.bytes" if is_struct else self.image
        self.file, self.max_bytes = file, max_bytes
        sizes = [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)]
        self.starts = list(accumulate(sizes, initial=0))[:-1]
        self.batches: Batches = iter(())
        self.group, self.first, self.values = -1, 0, pa.array([], pa.binary())
        self.failed: dict[int, FetchError] = {}  # by row group: what follows cannot be read either

    def read(self, member: Member) -> bytes:
        group = bisect_right(self.starts, member.offset) - 1
        if group in self.failed:
            raise self.failed[group]
        try:
            value = fetched(partial(self._value, group, member.offset))
        except FetchError as error:
            self.failed[group] = error
            raise
        if not value.is_valid:
            raise FetchError(Status.NOT_FOUND, "the row has no bytes")
        if value.as_buffer().size > self.max_bytes:
            raise too_large(self.max_bytes)
        return value.as_py()

    def _value(self, group: int, row: int) -> pa.Scalar:
        if group != self.group or row < self.first:
            self.group, self.first, self.values = group, self.starts[group], self.values[:0]
            self.batches = self.file.iter_batches(READ_ROWS, [group], [self.leaf])
        while row >= self.first + len(self.values):
            self._advance()
        return self.values[row - self.first]

    def _advance(self) -> None:
        try:
            values = next(self.batches).column(self.image)
        except Exception:
            self.group = -1  # an iterator that has failed is of no use any more
            raise
        self.first += len(self.values)
        self.values = values if self.leaf == self.image else pc.struct_field(values, "bytes")
