"""Manifests: files that list images in a column `image_uri`, with columns of their own."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc

from captioner.jobs.errors import UsageError
from captioner.jobs.messages import how_many
from captioner.jobs.sources.exclusion import NOTHING, Exclusion, why_excluded
from captioner.jobs.sources.manifests.access import keys_and_access
from captioner.jobs.sources.manifests.formats import TEXT, WithUriColumn
from captioner.jobs.sources.manifests.streams import read_or_refuse
from captioner.jobs.sources.manifests.tables import Rows, as_one_table, one_format, own_columns
from captioner.jobs.sources.source import Batches, Source
from captioner.jobs.storage.file_types import is_image_name
from captioner.jobs.storage.uris import (
    file_name,
    image_version,
    is_http,
    listed_uri,
    path_below,
    scheme_with_password,
)
from captioner.schemas.image_record import (
    ACCESS,
    ACCESS_TYPE,
    IMAGE_URI,
    IMAGE_VERSION,
    plan_schema,
)

LOOKED_AT = 100  # lines of a text file that may be notes
NO_URI = "rows without an image"  # a reason for skipping
MAX_URI = 16 * 1024  # characters
Skipped = Counter[str]
_RECORD = (IMAGE_URI, IMAGE_VERSION)


def manifest_source(
    files: Sequence[str],
    folder: str,
    uri_column: str | None = None,
    exclusion: Exclusion = NOTHING,
) -> Source:
    """Return the images that the files of a manifest list, but for those that are excluded.

    `uri_column` names the column with the images if it is not `image_uri`. Relative paths in the
    files are relative to `folder`, and become absolute; `key=value` folders below it add columns.
    The versions of local files are looked up where the column `image_version` has none. Rows
    without an image are skipped. UsageError for files of several formats, contradicting types, and
    a file that cannot be read, lacks the column, or has a row with a password.
    """
    file_format = one_format(files, folder)
    if uri_column not in (None, IMAGE_URI) and file_format is not TEXT:
        file_format = WithUriColumn(file_format, uri_column)
    schema, rows = as_one_table(files, folder, file_format)
    own = (column for column in schema if column.name not in _RECORD)
    target = plan_schema(own_columns(own), ACCESS)
    skipped: Counter[str] = Counter()
    records = _records(rows, folder, target, skipped)
    if exclusion is NOTHING:
        return Source(target, records, skipped)

    def why_not(uri: str) -> str | None:
        path = path_below(uri, folder)
        return exclusion.of(unquote(path) if is_http(uri) else path)

    kept = _not_excluded(records, why_not, skipped)
    return Source(target, kept, skipped, lambda uri: why_not(uri) is None)


def lists_images(file: str, folder: str) -> bool:
    """Return whether each of a text file's first lines names an image, or a file that exists.

    Otherwise notes would count as manifests, as any sentence is a valid path.
    """
    batch = read_or_refuse(file, lambda: next(TEXT.batches(file, TEXT.schema(file)), None))
    lines = batch.column(IMAGE_URI)[:LOOKED_AT].to_pylist() if batch else []
    uris = (listed_uri(line, folder) for line in lines)
    return all(is_image_name(file_name(uri)) or image_version(uri) for uri in uris)


def _records(rows: Iterable[Rows], folder: str, schema: pa.Schema, skipped: Skipped) -> Batches:
    """Yield image records: every URI that a manifest lists passes here.

    Count the rows without one. UsageError if no row has one, if one is too long, or has a password.
    """
    file, listed, blank = "", 0, 0
    for file, first, batch in rows:
        trimmed = pc.utf8_trim_whitespace(pc.fill_null(batch.column(IMAGE_URI), ""))
        is_named = pc.not_equal(trimmed, "")
        named = batch.filter(is_named)
        blank += batch.num_rows - named.num_rows
        listed += named.num_rows
        if blank:
            skipped[NO_URI] = blank
        if named.num_rows:
            _check_names(file, first, named, pc.indices_nonzero(is_named).to_pylist())
            yield _record_batch(named, folder, schema)
    if blank and not listed:
        raise UsageError(f"{file} has {how_many(blank, 'row')}, but names no image")


def _record_batch(rows: pa.RecordBatch, folder: str, schema: pa.Schema) -> pa.RecordBatch:
    listed = [listed_uri(name, folder) for name in rows.column(IMAGE_URI).to_pylist()]
    uris, access = keys_and_access(listed, folder)
    versions = map(_version, _given_versions(rows), uris)
    own = [rows.column(name) for name in rows.schema.names if name not in _RECORD]
    columns = [uris, list(versions), pa.array(access, ACCESS_TYPE), *own]
    return pa.record_batch(columns, schema=schema)


def _version(given: str | None, uri: str) -> str | None:
    return given or image_version(uri)


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


def _check_names(file: str, first_row: int, rows: pa.RecordBatch, numbers: list[int]) -> None:
    for number, name in zip(numbers, rows.column(IMAGE_URI).to_pylist(), strict=True):
        row = first_row + number
        if len(name) > MAX_URI:
            raise UsageError(
                f"{file}: the {IMAGE_URI} in row {row} has {len(name)} characters, and the limit "
                f"is {MAX_URI}"
            )
        if "@" in name and (protocol := scheme_with_password(name.strip())):
            raise UsageError(
                f"{file}: the {IMAGE_URI} in row {row} has a password, which would be "
                f"written to OUT: put it into the table [storage_options.{protocol}] of a job file"
            )
