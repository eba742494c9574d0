"""Manifests: files that list images in a column `image_uri`, with columns of their own.

Several files of one format are one manifest, as if they were concatenated in order. A column that
a file lacks is null there, a column without any value is text, and a column whose types differ
gets the type that its format unifies them to. Folders named `key=value` add a column of text.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import PurePosixPath
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from captioner.jobs.errors import UsageError
from captioner.jobs.sources.exclusion import NOTHING, Exclusion, why_excluded
from captioner.jobs.sources.manifests.access import keys_and_access
from captioner.jobs.sources.manifests.formats import TEXT, ManifestFormat, WithUriColumn, format_of
from captioner.jobs.sources.manifests.streams import read_or_refuse
from captioner.jobs.sources.source import Batches, Source
from captioner.jobs.storage.file_types import is_image_name
from captioner.jobs.storage.uris import (
    PASSWORD,
    file_name,
    image_uri,
    image_version,
    is_http,
    name_below,
    parent_folder,
    path_below,
    scheme_with_password,
)
from captioner.schemas.caption_table import passthrough_names
from captioner.schemas.image_record import (
    ACCESS,
    ACCESS_TYPE,
    IMAGE_URI,
    IMAGE_VERSION,
    plan_schema,
)

LOOKED_AT = 100  # lines of a text file that may be notes


def manifest_source(
    files: Sequence[str],
    folder: str,
    uri_column: str | None = None,
    exclusion: Exclusion = NOTHING,
) -> Source:
    """Return the images that the files of a manifest list, but for those that are excluded.

    `uri_column` names the column with the images if it is not `image_uri`. Relative paths in the
    files are relative to `folder`, and become absolute; `key=value` folders below it add columns.
    The versions of local files are looked up where the column `image_version` has none. UsageError
    for files of several formats, contradicting types, and a file that cannot be read, lacks the
    column, or has a row without an image or with a password.
    """
    file_format = one_format(files, folder)
    if uri_column not in (None, IMAGE_URI) and file_format is not TEXT:
        file_format = WithUriColumn(file_format, uri_column)
    schema, batches = as_one_table(files, folder, file_format)
    own = (column for column in schema if column.name not in (IMAGE_URI, IMAGE_VERSION))
    target = plan_schema(own_columns(own), ACCESS)
    records = _records((batch for _, batch in batches), folder, target)
    if exclusion is NOTHING:
        return Source(target, records)

    def why_not(uri: str) -> str | None:
        path = path_below(uri, folder)
        return exclusion.of(unquote(path) if is_http(uri) else path)

    skipped: Counter[str] = Counter()
    kept = _not_excluded(records, why_not, skipped)
    return Source(target, kept, skipped, lambda uri: why_not(uri) is None)


def lists_images(file: str, folder: str) -> bool:
    """Return whether each of a text file's first lines names an image, or a file that exists.

    Otherwise notes would count as manifests, as any sentence is a valid path.
    """
    batch = read_or_refuse(file, lambda: next(TEXT.batches(file, TEXT.schema(file)), None))
    lines = batch.column(IMAGE_URI)[:LOOKED_AT].to_pylist() if batch else []
    uris = (image_uri(line, folder) for line in lines)
    return all(is_image_name(file_name(uri)) or image_version(uri) for uri in uris)


def as_one_table(
    files: Sequence[str], folder: str, file_format: ManifestFormat
) -> tuple[pa.Schema, Iterator[tuple[str, pa.RecordBatch]]]:
    """Return the common schema of files of one format, and their batches, each with its file.

    The `key=value` folders that the files are in add columns.
    """
    schema = _common_schema(files, folder, file_format)

    def rows() -> Iterator[tuple[str, pa.RecordBatch]]:
        for path in files:
            batches = file_format.batches(path, schema)
            checked = _file_batches(path, batches, _folder_keys(path, folder))
            yield from ((path, batch) for batch in checked)

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
        raise UsageError(f"{path} has several columns named {', '.join(repeated)}")
    for name in (name for name in (IMAGE_URI, IMAGE_VERSION) if name in schema.names):
        kind = schema.field(name).type
        text = kind.value_type if pa.types.is_dictionary(kind) else kind
        if text not in (pa.string(), pa.large_string(), pa.null()):
            raise UsageError(f"{path}: the column {name} must hold text, not {kind}")


def _folder_keys(path: str, folder: str) -> dict[str, str | None]:
    """Return the values that `key=value` folders give to the rows of a file."""
    parent = parent_folder(path)
    below = name_below(parent, folder) if parent.startswith(folder) else ""
    names = [unquote(part.partition("=")[0]) for part in PurePosixPath(below).parts]
    # Text, because the type that pyarrow infers would change with the folders.
    partitioning = ds.HivePartitioning(pa.schema([(name, pa.string()) for name in names]))
    return read_or_refuse(path, lambda: ds.get_partition_keys(partitioning.parse(f"{below}/file")))


def _file_batches(path: str, batches: Batches, keys: dict[str, str | None]) -> Batches:
    """Yield the rows of a file, with the values from its folders; check that all name an image."""
    row = 1
    while (batch := read_or_refuse(path, lambda: next(batches, None))) is not None:
        _check_uris(path, batch.column(IMAGE_URI).cast(pa.string()), row)
        for name, value in keys.items():
            column = pa.repeat(pa.scalar(value, pa.string()), batch.num_rows)
            batch = batch.set_column(batch.schema.get_field_index(name), name, column)
        yield batch
        row += batch.num_rows


def _records(batches: Batches, folder: str, schema: pa.Schema) -> Batches:
    for batch in batches:
        names = batch.column(IMAGE_URI).cast(pa.string()).to_pylist()
        uris, access = keys_and_access([image_uri(name, folder) for name in names], folder)
        given = _given_versions(batch)
        versions = [v or image_version(uri) for uri, v in zip(uris, given, strict=True)]
        own = [batch.column(n) for n in batch.schema.names if n not in (IMAGE_URI, IMAGE_VERSION)]
        columns = [uris, versions, pa.array(access, ACCESS_TYPE), *own]
        yield pa.record_batch(columns, schema=schema)


def _not_excluded(
    records: Batches, why_not: Callable[[str], str | None], skipped: Counter[str]
) -> Batches:
    """Yield the images that no pattern excludes; count the others by pattern."""
    for batch in records:
        patterns = [why_not(uri) for uri in batch.column(IMAGE_URI).to_pylist()]
        skipped.update(why_excluded(pattern) for pattern in patterns if pattern)
        yield batch.filter(pa.array([pattern is None for pattern in patterns], pa.bool_()))


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
                f"written to OUT: put it into the table [storage_options.{protocol}] of a job file"
            )
