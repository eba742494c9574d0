"""SOURCE -> image records, as a stream: a directory, a glob, an image, a manifest, containers."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain, islice
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
from tqdm import tqdm

from captioner.jobs.errors import UsageError
from captioner.jobs.sources.listing.filters import (
    AllImages,
    IsImage,
    Matches,
    Selection,
    has_magic,
    is_any_name,
    split_glob,
)
from captioner.jobs.sources.listing.local import local_records
from captioner.jobs.sources.listing.remote import remote_records
from captioner.jobs.sources.manifests.manifest import lists_images, manifest_source
from captioner.jobs.sources.parquet_images import holds_images, parquet_image_source
from captioner.jobs.sources.s3_inventory.inventory import find_inventory, inventory_source
from captioner.jobs.sources.source import BATCH_ROWS, Batches, Records, Scope, Source
from captioner.jobs.sources.tar_archives import archive_source
from captioner.jobs.storage.failures import failure_status, listing_errors
from captioner.jobs.storage.file_types import (
    ARCHIVE_SUFFIXES,
    IMAGE_SUFFIXES,
    MANIFEST_SUFFIXES,
    is_archive,
    is_image_name,
    is_manifest,
    is_named_like_a_file,
    is_parquet,
    is_text,
)
from captioner.jobs.storage.filesystems import file_info
from captioner.jobs.storage.uris import (
    below,
    file_name,
    image_uri,
    image_version,
    info_version,
    is_http,
    is_local,
    local_path,
    name_below,
    parent_folder,
    split_chain,
)
from captioner.schemas.caption_table import Status
from captioner.schemas.image_record import plan_schema

Lister = Callable[[str, Selection], Records]  # of a folder
Select = Callable[[IsImage], Selection]


def open_source(source: str | Path, any_extension: bool = False) -> Source:
    """Return the images that SOURCE names: a path, or any URL that fsspec opens.

    The order depends on the names alone. In a directory, hidden files and folders and, unless
    `any_extension`, files without an image's extension are skipped; symbolic links are followed,
    and loops end.

    A directory without any image stands for the tar archives in it, at any depth; manifests beside
    them are skipped. Without archives, it stands for its manifests or its Parquet files of images,
    of one format, at the top or in `key=value` folders; those in other folders are skipped. A text
    file in it is a manifest only if its lines look like images' names. The first image found
    settles that it is a directory of images, whose archives and manifests are skipped. A glob
    matches images, or else archives, or else Parquet files of images.

    UsageError if there is nothing to read, TemporaryError if a store does not answer.
    """
    if manifest := find_inventory(str(source)):
        return inventory_source(manifest, None if any_extension else IMAGE_SUFFIXES)
    is_image = is_any_name if any_extension else is_image_name
    if not is_local(str(source)):
        return _remote(image_uri(str(source)), is_image)
    path = Path(local_path(str(source)))
    if path.is_dir():
        return _local_directory(path, is_image)
    if path.is_file():
        return _file(str(path.absolute()), image_version(str(path)), is_image)
    if has_magic(str(path)):
        base, pattern = split_glob(str(path))
        folder = os.path.abspath(base)  # noqa: PTH100
        return _listing(str(path), folder, partial(Matches, pattern), is_image, local_records)
    raise _nothing_there(str(source))


def _local_directory(path: Path, is_image: IsImage) -> Source:
    try:
        next(path.iterdir(), None)
    except OSError as error:
        raise UsageError(f"cannot list {path}: {error.strerror}") from error
    folder = os.path.abspath(path)  # noqa: PTH100
    return _listing(folder, folder, AllImages, is_image, local_records)


def _remote(url: str, is_image: IsImage) -> Source:
    with listing_errors(url):
        info = _info(url)
    inner, container = split_chain(url)
    if info is not None and info["type"] == "directory":
        top, below_top = inner.split("://", 1)
        folder = f"{top}://{below_top.rstrip('/')}{container}"
        return _listing(folder, folder, AllImages, is_image, remote_records)
    if info is not None:
        return _file(url, info_version(info), is_image)
    if has_magic(inner):
        base, pattern = split_glob(inner)
        matching = partial(Matches, pattern)
        return _listing(url, base + container, matching, is_image, remote_records)
    raise _nothing_there(url)


def _info(url: str) -> Mapping[str, Any] | None:
    """Return what a store says about a URL; None if it has nothing there.

    An HTTP server does not say what is a directory, so any URL that is not named like a file
    counts as one.
    """
    inner, _ = split_chain(url)
    is_file = is_named_like_a_file(file_name(url))
    if inner.endswith("/") or (is_http(url) and not is_file and not has_magic(inner)):
        return {"type": "directory"}
    try:
        return file_info(url)
    except Exception as error:
        if failure_status(error) != Status.NOT_FOUND:
            raise
        return None


def _nothing_there(source: str) -> UsageError:
    return UsageError(f"{source} does not exist; SOURCE is a directory, a glob or a manifest")


def _file(uri: str, version: str | None, is_image: IsImage) -> Source:
    name, key = file_name(uri), image_uri(uri)

    def scope(other: str) -> bool:
        return other == key

    if is_archive(name):
        return _not_empty(uri, archive_source([key], scope))
    if is_manifest(name):
        return _tables([uri], parent_folder(uri), scope)
    if is_image(name):
        return Source(plan_schema(), _batches(iter([(key, version)])), scope=scope)
    known = ", ".join((*MANIFEST_SUFFIXES, *ARCHIVE_SUFFIXES))
    raise UsageError(f"{uri} is neither an image nor a manifest nor an archive ({known})")


def _listing(source: str, folder: str, select: Select, is_image: IsImage, listed: Lister) -> Source:
    """Return the images that are selected below a folder, or else the fallback."""
    images = select(is_image)
    records = listed(folder, images)
    if first := next(records, None):
        records = chain([first], records)
    elif fallback := _fallback(source, folder, select, images):
        return fallback
    scope = _scope(folder, select(is_image))
    return _not_empty(source, Source(plan_schema(), _batches(records), images.skipped, scope))


def _fallback(source: str, folder: str, select: Select, images: Selection) -> Source | None:
    """Return the source that a listing without images stands for: archives, or else tables."""
    files = [below(folder, name) for name in images.fallback_files()]
    if files and is_archive(files[0]):
        covers = _scope(folder, select(is_archive))
        found = archive_source([*map(image_uri, files)], covers)
        found.skipped.update(images.skipped)
        return _not_empty(source, found)
    if files and (images.allows_manifests or holds_images(files[0])):
        _check_not_notes(files, folder)
        tables = select(lambda name: is_parquet(name) and images.may_be_fallback(name))
        found = _tables(files, folder, _scope(folder, tables))
        return replace(found, skipped=images.skipped)
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


def _tables(files: Sequence[str], folder: str, covers: Scope) -> Source:
    """Return the images that manifests list, or that Parquet files hold."""
    if holds_images(files[0]):
        return parquet_image_source(files, folder, covers)
    return manifest_source(files, folder)


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


def _not_empty(source: str, listing: Source) -> Source:
    """Return the same source, whose first image has been read; UsageError if there is none."""
    first = next((batch for batch in listing.batches if batch.num_rows), None)
    if first is None:
        others = ", ".join(f"{n} {reason}" for reason, n in listing.skipped.items())
        raise UsageError(f"no images in {source}" + (f" (skipped: {others})" if others else ""))

    def batches() -> Batches:
        yield first
        yield from listing.batches

    return replace(listing, batches=batches())


def _batches(records: Records) -> Batches:
    while rows := list(islice(records, BATCH_ROWS)):
        uris, versions = zip(*rows, strict=True)
        yield pa.record_batch([uris, versions], schema=plan_schema())


def with_progress(source: Source, quiet: bool) -> Source:
    """Return the same source, which counts the images found on stderr if that is a terminal."""

    def batches() -> Batches:
        with tqdm(
            desc="listing", unit=" images", leave=False, disable=True if quiet else None
        ) as bar:
            for batch in source.batches:
                bar.update(batch.num_rows)
                yield batch

    return replace(source, batches=batches())
