"""A folder, or a glob below it -> its images, or else what it holds: archives, tables of images."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain, islice
from pathlib import PurePosixPath
from urllib.parse import unquote

import pyarrow as pa

from captioner.jobs.errors import UsageError
from captioner.jobs.sources.archives.tar_archives import archive_source
from captioner.jobs.sources.empty import no_images
from captioner.jobs.sources.listing.filters import (
    AllImages,
    IsImage,
    Matches,
    Selection,
    split_glob,
)
from captioner.jobs.sources.logged_tables import refuse_logged_table
from captioner.jobs.sources.manifests.manifest import lists_images, manifest_source
from captioner.jobs.sources.options import SourceOptions
from captioner.jobs.sources.parquet_images import holds_images, parquet_image_source
from captioner.jobs.sources.source import BATCH_ROWS, Batches, Records, Scope, Source
from captioner.jobs.storage.file_types import is_archive, is_parquet, is_text
from captioner.jobs.storage.uris import (
    below,
    file_name,
    image_uri,
    is_http,
    name_below,
    split_chain,
)
from captioner.schemas.image_record import plan_schema

Lister = Callable[[str, Selection], Records]  # of a folder
Select = Callable[[IsImage], Selection]


def folder_source(folder: str, listed: Lister, options: SourceOptions) -> Source:
    """Return the images below a folder, or else its archives or tables."""
    select = partial(AllImages, exclusion=options.exclusion(encoded=is_http(folder)))
    return _listing(folder, folder, select, listed, options)


def glob_source(
    glob: str, listed: Lister, options: SourceOptions, absolute: Callable[[str], str]
) -> Source:
    """Return the images that a glob matches, or else archives or tables.

    `absolute` makes a path or URL of the folder that the glob begins with.
    """
    base, pattern = split_glob(split_chain(glob)[0])
    exclusion = options.exclusion(unquote(pattern), encoded=is_http(base))
    select = partial(Matches, pattern, exclusion=exclusion)
    return _listing(glob, absolute(base), select, listed, options)


def _listing(
    source: str, folder: str, select: Select, listed: Lister, options: SourceOptions
) -> Source:
    """Return the images that are selected below a folder, or else the fallback."""
    images = select(options.is_image)
    records = listed(folder, images)
    if first := next(records, None):
        records = chain([first], records)
    elif fallback := _fallback(source, folder, select, images, options):
        return fallback
    scope = _scope(folder, select(options.is_image))
    return not_empty(source, Source(plan_schema(), record_batches(records), images.skipped, scope))


def _fallback(
    source: str, folder: str, select: Select, images: Selection, options: SourceOptions
) -> Source | None:
    """Return the source that a listing without images stands for: archives, or else tables."""
    files = [below(folder, name) for name in images.fallback_files()]
    if files and is_archive(files[0]):
        covers = _scope(folder, select(is_archive))
        found = archive_source([*map(image_uri, files)], covers, options.exclusion())
        found.skipped.update(images.skipped)
        return not_empty(source, found)
    if images.allows_manifests:
        refuse_logged_table(folder)
    if files and (images.allows_manifests or holds_images(files[0], options)):
        _check_not_notes(files, folder)
        tables = select(lambda name: is_parquet(name) and images.may_be_fallback(name))
        found = table_source(files, folder, _scope(folder, tables), options)
        found.skipped.update(images.skipped)
        return found
    images.skip_fallback()
    return None


def _check_not_notes(files: Sequence[str], folder: str) -> None:
    """Raise UsageError if there are text files that may be anything but manifests."""
    texts = (file for file in files if is_text(file_name(file)))
    if notes := next((file for file in texts if not lists_images(file, folder)), None):
        raise UsageError(
            f"no images in {folder} (it has text files such as {name_below(notes, folder)}: "
            "name one as SOURCE if it lists images)"
        )


def table_source(
    files: Sequence[str], folder: str, covers: Scope, options: SourceOptions
) -> Source:
    """Return the images that manifests list, or that Parquet files hold."""
    if holds_images(files[0], options):
        return parquet_image_source(files, folder, covers, options.image_column)
    return manifest_source(files, folder, options.uri_column, options.given_exclusion)


def _scope(folder: str, selection: Selection) -> Scope:
    """Return whether a URI would be selected if it were in the folder, as a function."""
    start, end = split_chain(folder)
    start = start if start.endswith("/") else f"{start}/"

    def covers(uri: str) -> bool:
        if not (uri.startswith(start) and uri.endswith(end)):
            return False
        name = name_below(uri, folder)
        folders = [str(parent) for parent in PurePosixPath(name).parents][:-1]
        return all(map(selection.enters, folders)) and selection.accepts(name)

    return covers


def not_empty(source: str, listing: Source) -> Source:
    """Return the same source, whose first image has been read; UsageError if there is none."""
    first = next((batch for batch in listing.batches if batch.num_rows), None)
    if first is None:
        raise no_images(source, listing.skipped)

    def batches() -> Batches:
        yield first
        yield from listing.batches

    return replace(listing, batches=batches())


def record_batches(records: Records) -> Batches:
    """Yield URIs and versions in batches."""
    while rows := list(islice(records, BATCH_ROWS)):
        uris, versions = zip(*rows, strict=True)
        yield pa.record_batch([uris, versions], schema=plan_schema())
