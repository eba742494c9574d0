"""The files of one format -> one table, as if they were concatenated in order.

A column that a file lacks is null there, a column without any value is text, and a column whose
types differ gets the type that its format unifies them to. Folders named `key=value` add a column
of text.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import PurePosixPath
from typing import NamedTuple
from urllib.parse import unquote

import pyarrow as pa

from captioner.jobs.errors import UsageError
from captioner.jobs.sources.manifests.formats import ManifestFormat, format_of
from captioner.jobs.sources.manifests.streams import read_or_refuse
from captioner.jobs.sources.manifests.valid_text import with_valid_text
from captioner.jobs.sources.source import Batches
from captioner.jobs.storage.uris import file_name, name_below, parent_folder
from captioner.schemas.caption_table import passthrough_names
from captioner.schemas.image_record import IMAGE_URI, IMAGE_VERSION


class Rows(NamedTuple):
    """Rows of a file, of which `first`, from 1, is the number of the first."""

    file: str
    first: int
    batch: pa.RecordBatch


def as_one_table(
    files: Sequence[str], folder: str, file_format: ManifestFormat
) -> tuple[pa.Schema, Iterator[Rows]]:
    """Return the common schema of files of one format, and their rows.

    The `key=value` folders that the files are in add columns.
    """
    schema = _common_schema(files, folder, file_format)

    def rows() -> Iterator[Rows]:
        for path in files:
            yield from _rows(path, file_format.batches(path, schema), _folder_keys(path, folder))

    return schema, rows()


def own_columns(columns: Iterable[pa.Field]) -> pa.Schema:
    """Return a manifest's own columns, with the names that they get in the table."""
    own = list(columns)
    names = passthrough_names([column.name for column in own])
    return pa.schema([column.with_name(name) for column, name in zip(own, names, strict=True)])


def one_format(files: Sequence[str], folder: str) -> ManifestFormat:
    """Return the format of all the files; UsageError if they have several."""
    formats = {format_of(file_name(path)): name_below(path, folder) for path in reversed(files)}
    if len(formats) > 1:
        first, second, *_ = sorted(formats.values())
        raise UsageError(
            f"{folder} holds manifests of several kinds, such as {first} and {second}: "
            "SOURCE may be one of them, or a folder with those of one kind"
        )
    (file_format,) = formats
    assert file_format, f"{files[0]} is not a manifest"
    return file_format


def _common_schema(files: Sequence[str], folder: str, file_format: ManifestFormat) -> pa.Schema:
    types: dict[str, pa.DataType] = {}
    for path in files:
        for column in _file_schema(path, folder, file_format):
            former = types.setdefault(column.name, column.type)
            if column.type != former:
                types[column.name] = _common_type(path, column, former, file_format)
    return pa.schema([(name, pa.string() if t == pa.null() else t) for name, t in types.items()])


def _common_type(
    path: str, column: pa.Field, former: pa.DataType, file_format: ManifestFormat
) -> pa.DataType:
    try:
        return file_format.common_type(former, column.type)
    except pa.ArrowException as error:
        raise UsageError(
            f"{path}: the column {column.name} is {column.type} here and {former} in the files "
            "before it: write it with one type in all of them"
        ) from error


def _file_schema(path: str, folder: str, file_format: ManifestFormat) -> pa.Schema:
    """Return the columns of a file, followed by those that its folders add."""
    schema = read_or_refuse(path, lambda: file_format.schema(path))
    keys = [pa.field(name, pa.string()) for name in _folder_keys(path, folder)]
    schema = pa.schema([*schema, *keys])
    _check_columns(path, schema)
    return schema


def _check_columns(path: str, schema: pa.Schema) -> None:
    if IMAGE_URI not in schema.names:
        found = ", ".join(schema.names)
        raise UsageError(
            f"{path} has no column {IMAGE_URI}; its columns are: {found}; if one of them has the "
            "images' paths or URLs, name it with --uri-column"
        )
    repeated = sorted({name for name in schema.names if schema.names.count(name) > 1})
    if repeated:
        names = ", ".join(name or "''" for name in repeated)
        raise UsageError(f"{path} has several columns named {names}")
    for name in (name for name in (IMAGE_URI, IMAGE_VERSION) if name in schema.names):
        kind = schema.field(name).type
        if kind not in (pa.string(), pa.null()):
            raise UsageError(f"{path}: the column {name} must hold text, not {kind}")


def _folder_keys(path: str, folder: str) -> dict[str, str | None]:
    """Return the values that `key=value` folders give to the rows of a file."""
    import pyarrow.dataset as ds  # here, because it imports pandas, which takes a fifth of a second

    parent = parent_folder(path)
    below = name_below(parent, folder) if parent.startswith(folder) else ""
    names = [unquote(part.partition("=")[0]) for part in PurePosixPath(below).parts]
    # Text, because the type that pyarrow infers would change with the folders.
    partitioning = ds.HivePartitioning(pa.schema([(name, pa.string()) for name in names]))
    return read_or_refuse(path, lambda: ds.get_partition_keys(partitioning.parse(f"{below}/file")))


def _rows(path: str, batches: Batches, keys: dict[str, str | None]) -> Iterator[Rows]:
    """Yield the rows of a file, with the values from its folders."""
    first = 1
    while (batch := read_or_refuse(path, lambda: next(batches, None))) is not None:
        batch = with_valid_text(path, first, batch)
        for name, value in keys.items():
            column = pa.repeat(pa.scalar(value, pa.string()), batch.num_rows)
            batch = batch.set_column(batch.schema.get_field_index(name), name, column)
        yield Rows(path, first, batch)
        first += batch.num_rows
