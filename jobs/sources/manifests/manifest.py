"""Manifests: files that list images in a column `image_uri`, with columns of their own.

Several files of one kind are one manifest, as if the rows of each followed those of the one
before it. A column that some of them lack is null there, one without any value is text, and one
whose types differ has the type that pyarrow unifies them to, or for JSONL text. Folders named
`key=value` give a column of text, too.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import PurePosixPath
from typing import TypeVar
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from captioner.jobs.errors import FetchError, UsageError
from captioner.jobs.sources.manifests.formats import TEXT, ManifestKind, manifest_kind
from captioner.jobs.sources.manifests.streams import Batches
from captioner.jobs.storage.failures import check_final
from captioner.jobs.storage.file_types import is_image_name
from captioner.jobs.storage.uris import (
    PASSWORD,
    file_name,
    image_uri,
    image_version,
    name_below,
    parent_folder,
    scheme_with_password,
)
from captioner.schemas.caption_table import passthrough_names
from captioner.schemas.image_record import IMAGE_URI, IMAGE_VERSION, plan_schema

LOOKED_AT = 100  # lines of a text file that may be a manifest
T = TypeVar("T")


def manifest_records(files: Sequence[str], folder: str) -> tuple[pa.Schema, Batches]:
    """The schema and the batches of the records of a manifest's files, in a plan's columns.

    `folder` is what the files' relative paths are relative to, and the top of the `key=value`
    folders they are in. Paths become absolute; the versions of local files are looked up where no
    column `image_version` gives them. UsageError for files of several kinds, types that contradict
    each other, and a file that cannot be read, lacks `image_uri`, or in some row names no image or
    a password.
    """
    schema, batches = as_one_table(files, folder, one_kind(files, folder))
    own = (column for column in schema if column.name not in (IMAGE_URI, IMAGE_VERSION))
    target = plan_schema(own_columns(own))
    return target, _records((batch for _, batch in batches), folder, target)


def lists_images(file: str, folder: str) -> bool:
    """Whether each of a text file's first lines names an image, or a file that is there.

    So that notes which lie about are no manifest: a sentence is a path, too.
    """
    batch = readable(file, lambda: next(TEXT.batches(file, TEXT.schema(file)), None))
    lines = batch.column(IMAGE_URI)[:LOOKED_AT].to_pylist() if batch else []
    uris = (image_uri(line, folder) for line in lines)
    return all(is_image_name(file_name(uri)) or image_version(uri) for uri in uris)


def as_one_table(
    files: Sequence[str], folder: str, kind: ManifestKind
) -> tuple[pa.Schema, Iterator[tuple[str, pa.RecordBatch]]]:
    """The columns and rows of files of one kind and the folders they are in; each with its file."""
    schema = _common_schema(files, folder, kind)

    def rows() -> Iterator[tuple[str, pa.RecordBatch]]:
        for path in files:
            batches = _file_batches(path, kind.batches(path, schema), _folder_keys(path, folder))
            yield from ((path, batch) for batch in batches)

    return schema, rows()


def own_columns(columns: Iterable[pa.Field]) -> pa.Schema:
    """A manifest's own columns, as the table names them."""
    own = list(columns)
    names = passthrough_names([column.name for column in own])
    return pa.schema([column.with_name(name) for column, name in zip(own, names, strict=True)])


def one_kind(files: Sequence[str], folder: str) -> ManifestKind:
    """The kind of all the files; UsageError if they are of several."""
    kinds = {manifest_kind(file_name(path)): name_below(path, folder) for path in reversed(files)}
    if len(kinds) > 1:
        first, second, *_ = sorted(kinds.values())
        raise UsageError(
            f"{folder} holds manifests of several kinds, such as {first} and {second}: "
            "SOURCE may be one of them, or a folder with those of one kind"
        )
    (kind,) = kinds
    assert kind, f"{files[0]} is no manifest"
    return kind


def _common_schema(files: Sequence[str], folder: str, kind: ManifestKind) -> pa.Schema:
    types: dict[str, pa.DataType] = {}
    for path in files:
        for column in _file_schema(path, folder, kind):
            former = types.setdefault(column.name, column.type)
            if column.type != former:
                types[column.name] = _common_type(path, column, former, kind)
    return pa.schema([(name, pa.string() if t == pa.null() else t) for name, t in types.items()])


def _common_type(
    path: str, column: pa.Field, former: pa.DataType, kind: ManifestKind
) -> pa.DataType:
    try:
        return kind.common_type(former, column.type)
    except pa.ArrowException as error:
        raise UsageError(
            f"{path}: the column {column.name} is {column.type} here and {former} in the files "
            "before it: write it with one type in all of them"
        ) from error


def _file_schema(path: str, folder: str, kind: ManifestKind) -> pa.Schema:
    """The columns of a file, then those that its folders give."""
    schema = readable(path, lambda: kind.schema(path))
    keys = [pa.field(name, pa.string()) for name in _folder_keys(path, folder)]
    schema = pa.schema([*schema, *keys])
    _check_columns(path, schema)
    return schema


def _check_columns(path: str, schema: pa.Schema) -> None:
    if IMAGE_URI not in schema.names:
        found = ", ".join(schema.names)
        raise UsageError(f"{path} has no column {IMAGE_URI}; its columns are: {found}")
    repeated = sorted({name for name in schema.names if schema.names.count(name) > 1})
    if repeated:
        raise UsageError(f"{path} has several columns named {', '.join(repeated)}")
    for name in (name for name in (IMAGE_URI, IMAGE_VERSION) if name in schema.names):
        kind = schema.field(name).type
        text = kind.value_type if pa.types.is_dictionary(kind) else kind
        if text not in (pa.string(), pa.large_string(), pa.null()):
            raise UsageError(f"{path}: the column {name} must hold text, not {kind}")


def _folder_keys(path: str, folder: str) -> dict[str, str | None]:
    """The values that `key=value` folders give the rows of a file."""
    below = name_below(parent_folder(path), folder)
    names = [unquote(part.partition("=")[0]) for part in PurePosixPath(below).parts]
    # Text, because the type that pyarrow infers would change with the folders.
    partitioning = ds.HivePartitioning(pa.schema([(name, pa.string()) for name in names]))
    return readable(path, lambda: ds.get_partition_keys(partitioning.parse(f"{below}/file")))


def _file_batches(path: str, batches: Batches, keys: dict[str, str | None]) -> Batches:
    """The rows of one file, with the values that its folders give them; all name an image."""
    row = 1
    while (batch := readable(path, lambda: next(batches, None))) is not None:
        _check_uris(path, batch.column(IMAGE_URI).cast(pa.string()), row)
        for name, value in keys.items():
            column = pa.repeat(pa.scalar(value, pa.string()), batch.num_rows)
            batch = batch.set_column(batch.schema.get_field_index(name), name, column)
        yield batch
        row += batch.num_rows


def _records(batches: Batches, folder: str, schema: pa.Schema) -> Batches:
    for batch in batches:
        names = batch.column(IMAGE_URI).cast(pa.string()).to_pylist()
        uris = [image_uri(name, folder) for name in names]
        given = _given_versions(batch)
        versions = [v or image_version(uri) for uri, v in zip(uris, given, strict=True)]
        own = [batch.column(n) for n in batch.schema.names if n not in (IMAGE_URI, IMAGE_VERSION)]
        yield pa.record_batch([uris, versions, *own], schema=schema)


def _given_versions(batch: pa.RecordBatch) -> list[str | None]:
    if IMAGE_VERSION not in batch.schema.names:
        return [None] * batch.num_rows
    versions: list[str | None] = batch.column(IMAGE_VERSION).cast(pa.string()).to_pylist()
    return versions


def _check_uris(path: str, uris: pa.Array, first_row: int) -> None:
    empty = pc.index(pc.fill_null(uris, ""), "").as_py()
    if empty >= 0:
        raise UsageError(f"{path}: row {first_row + empty} has no {IMAGE_URI}")
    suspects = pc.indices_nonzero(pc.match_substring_regex(uris, PASSWORD.pattern)).to_pylist()
    for row in suspects:
        if protocol := scheme_with_password(uris[row].as_py()):
            raise UsageError(
                f"{path}: the {IMAGE_URI} in row {first_row + row} has a password, which would be "
                f"written to OUT: it belongs in a job file's table [storage_options.{protocol}]"
            )


def readable(path: str, read: Callable[[], T]) -> T:
    """What `read` gives of a file; UsageError that names it if it cannot be read.

    TemporaryError for faults of a remote store that may pass.
    """
    try:
        return read()
    except (OSError, FetchError, pa.ArrowException, UnicodeError) as error:
        if isinstance(error, FetchError):
            check_final(path, error)
        reason = str(error).splitlines()[0]
        raise UsageError(f"cannot read the manifest {path}: {reason}") from error
