"""Several sources -> one, in their order, with the columns of all."""

from collections import Counter
from collections.abc import Iterable, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path

import pyarrow as pa

from captioner.jobs.errors import UsageError
from captioner.jobs.sources.archives.tar_archives import archive_source
from captioner.jobs.sources.empty import maybe_empty
from captioner.jobs.sources.folders import record_batches
from captioner.jobs.sources.manifests.streams import conform
from captioner.jobs.sources.open_source import open_source
from captioner.jobs.sources.options import DEFAULT_OPTIONS, SourceOptions
from captioner.jobs.sources.source import Batches, Source
from captioner.jobs.storage.file_types import is_archive, is_manifest
from captioner.jobs.storage.parquet.types import plain_type
from captioner.jobs.storage.uris import image_uri, image_version, is_local, local_path
from captioner.schemas.image_record import (
    ACCESS,
    IMAGE_ACCESS,
    IMAGE_MEMBER,
    IMAGE_URI,
    IMAGE_VERSION,
    MEMBERS,
    plan_schema,
)

_ARCHIVES, _IMAGES = "archives", "images"


def open_sources(sources: Sequence[str | Path], options: SourceOptions = DEFAULT_OPTIONS) -> Source:
    """Return the images that one SOURCE or several name, as one source.

    A column that a source lacks is null for its images; names that differ in case only are one
    column. UsageError if a column has types that do not fit together.
    """
    if len(sources) == 1:
        return _open(str(sources[0]), options)
    opened: list[tuple[str, Source]] = []
    for kind, group in groupby(sources, partial(_kind, options=options)):
        names = [*map(str, group)]
        if kind is None:
            opened += [(name, _open(name, options)) for name in names]
        else:
            opened.append((names[0], _files_together(kind, names, options)))
    return _joined([source for _, source in opened], [name for name, _ in opened])


def _open(source: str, options: SourceOptions) -> Source:
    return maybe_empty(lambda: open_source(source, options), empty_ok=options.empty_ok)


def _kind(source: str | Path, options: SourceOptions) -> str | None:
    """Return what a local file is, if many of them may be open as one source; else None."""
    path = Path(local_path(str(source))) if is_local(str(source)) else None
    if path is None or not path.is_file():
        return None
    if is_archive(path.name):
        return _ARCHIVES
    is_other = is_manifest(path.name) or path.suffix == ".json"
    return _IMAGES if options.is_image(path.name) and not is_other else None


def _files_together(kind: str, files: Sequence[str], options: SourceOptions) -> Source:
    """Return the images in archives, or those that files are, as a shell's glob gives them."""
    keys = [*map(image_uri, files)]
    scope = frozenset(keys).__contains__
    if kind == _ARCHIVES:
        return archive_source(keys, scope, options.exclusion())
    records = record_batches((key, image_version(key)) for key in keys)
    return Source(plan_schema(), records, scope=scope)


def _joined(sources: Sequence[Source], names: Sequence[str]) -> Source:
    spelt: dict[str, str] = {}  # the first spelling of each column
    for column in (column for source in sources for column in source.schema.names):
        spelt.setdefault(column.casefold(), column)
    schemas = [_spelt(source.schema, spelt) for source in sources]
    schema = _common_schema(schemas, names)
    skipped: Counter[str] = Counter()

    def batches() -> Batches:
        for source, own in zip(sources, schemas, strict=True):
            for batch in source.batches:
                yield conform(pa.record_batch(batch.columns, schema=own), schema)
            skipped.update(source.skipped)

    def scope(uri: str) -> bool:
        return any(source.scope(uri) for source in sources)

    return Source(schema, batches(), skipped, scope)


def _spelt(schema: pa.Schema, spelling: dict[str, str]) -> pa.Schema:
    return pa.schema([column.with_name(spelling[column.name.casefold()]) for column in schema])


def _common_schema(schemas: Sequence[pa.Schema], names: Iterable[str]) -> pa.Schema:
    """Return the columns of a record, then those of all the sources in the order of the first."""
    types: dict[str, pa.DataType] = {}
    for schema, name in zip(schemas, names, strict=True):
        for column in schema:
            kind = plain_type(column.type)
            types[column.name] = _common_type(types.get(column.name, kind), kind, column.name, name)
    record = (IMAGE_URI, IMAGE_VERSION, IMAGE_MEMBER, IMAGE_ACCESS)
    own = pa.schema([(name, kind) for name, kind in types.items() if name not in record])
    return plan_schema(own, *(column for column in (MEMBERS, ACCESS) if column.name in types))


def _common_type(one: pa.DataType, other: pa.DataType, column: str, source: str) -> pa.DataType:
    """Return a type that holds the values of both: text for text and numbers or times."""
    if one == other:
        return one
    if pa.string() in (one, other) and all(map(_is_text_or_scalar, (one, other))):
        return pa.string()
    try:
        schemas = [pa.schema([(column, kind)]) for kind in (one, other)]
        return pa.unify_schemas(schemas, promote_options="permissive").field(0).type
    except pa.ArrowException as error:
        raise UsageError(
            f"the column {column} is {other} in {source} and {one} in a source before it: "
            "change or rename it"
        ) from error


def _is_text_or_scalar(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_primitive(kind) or pa.types.is_null(kind)
