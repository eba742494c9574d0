"""SOURCE -> image records, as a stream: a directory, a glob, an image, a manifest, containers."""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
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
    is_on_top,
    split_glob,
)
from captioner.jobs.sources.listing.local import Records, local_records
from captioner.jobs.sources.listing.remote import remote_records
from captioner.jobs.sources.manifests.formats import MANIFEST_SUFFIXES, TEXT, manifest_kind
from captioner.jobs.sources.manifests.manifest import lists_images, manifest_records
from captioner.jobs.sources.parquet_images import holds_images, parquet_image_records
from captioner.jobs.sources.s3_inventory.inventory import find_inventory, inventory_records
from captioner.jobs.sources.source import Scope, Source
from captioner.jobs.sources.tar_archives import archive_records
from captioner.jobs.storage.failures import failure_status, listing_errors
from captioner.jobs.storage.file_types import (
    ARCHIVE_SUFFIXES,
    IMAGE_SUFFIXES,
    container_of,
    is_archive,
    is_image_name,
    is_parquet,
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

BATCH_ROWS = 10_000
List = Callable[[str, Selection], Records]  # of a folder


def open_source(source: str | Path, any_extension: bool = False) -> Source:
    """The images that SOURCE names: a path, or any URL that fsspec opens.

    The order depends on the names alone. Of a directory, hidden files and folders and, unless
    `any_extension`, files without an image's extension are skipped; symbolic links are followed,
    loops end.

    A directory without any image is its tar archives, in whatever folder, if it has some;
    manifests beside them are skipped. Without archives it is a manifest, or Parquet files of
    images, if it has such files, of one kind, in itself or in `key=value` folders; those in other
    folders are skipped. A text file in it is a manifest only if its lines look like images' names.
    The first image found settles that it is a directory of images, whose
    archives and manifests are skipped. A glob may match images, or else archives, or else Parquet
    files of images.

    UsageError if there is nothing that could be read, TemporaryError if a store does not answer.
    """
    if manifest := find_inventory(str(source)):
        return Source(*inventory_records(manifest, None if any_extension else IMAGE_SUFFIXES))
    is_image = is_any_name if any_extension else is_image_name
    if not is_local(str(source)):
        return _remote(image_uri(str(source)), is_image)
    path = Path(local_path(str(source)))
    if path.is_dir():
        return _local_directory(path, is_image)
    if path.is_file():
        return _file(str(path.absolute()), image_version(str(path)), is_image)
    if has_magic(str(path)):
        base, rest = split_glob(str(path))
        return _glob(str(path), os.path.abspath(base), rest, is_image, local_records)  # noqa: PTH100
    raise _nothing_there(str(source))


def _local_directory(path: Path, is_image: IsImage) -> Source:
    try:
        next(path.iterdir(), None)
    except OSError as error:
        raise UsageError(f"cannot list {path}: {error.strerror}") from error
    return _directory(os.path.abspath(path), is_image, local_records)  # noqa: PTH100


def _remote(url: str, is_image: IsImage) -> Source:
    with listing_errors(url):
        info = _info(url)
    inner, container = split_chain(url)
    if info is not None and info["type"] == "directory":
        top, below_top = inner.split("://", 1)
        return _directory(f"{top}://{below_top.rstrip('/')}{container}", is_image, remote_records)
    if info is not None:
        return _file(url, info_version(info), is_image)
    if has_magic(inner):
        base, rest = split_glob(inner)
        return _glob(url, base + container, rest, is_image, remote_records)
    raise _nothing_there(url)


def _info(url: str) -> Mapping[str, Any] | None:
    """What a store tells of a URL; None if it has nothing there.

    An HTTP server does not say what a directory is: what is named neither like an image nor like
    a manifest or an archive is taken for one.
    """
    inner, _ = split_chain(url)
    name = file_name(url)
    is_file = is_image_name(name) or manifest_kind(name) or is_archive(name)
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
        return _archives(uri, [key], Counter(), scope)
    if manifest_kind(name):
        return _tables([uri], parent_folder(uri), Counter(), scope)
    if is_image(name):
        return _found(uri, iter([(key, version)]), Counter(), scope)
    known = ", ".join((*MANIFEST_SUFFIXES, *ARCHIVE_SUFFIXES))
    raise UsageError(f"{uri} is neither an image nor a manifest nor an archive ({known})")


def _archives(source: str, archives: Sequence[str], skipped: Counter[str], covers: Scope) -> Source:
    """Members that follow the damage of an archive are not listed, and are not gone."""
    damaged: set[str] = set()

    def scope(uri: str) -> bool:
        archive = container_of(uri)
        return archive not in damaged and covers(archive)

    listing = Source(*archive_records(archives, skipped, damaged), skipped, scope)
    return _not_empty(source, listing)


def _tables(files: Sequence[str], folder: str, skipped: Counter[str], covers: Scope) -> Source:
    """Manifests, or Parquet files that hold the images themselves."""
    if not holds_images(files[0]):
        return Source(*manifest_records(files, folder), skipped)
    records = parquet_image_records(files, folder)
    return Source(*records, skipped, lambda uri: covers(container_of(uri)))


def _check_not_notes(files: Sequence[str], folder: str) -> None:
    """UsageError for text files that a directory has and that may be anything but manifests."""
    texts = (file for file in files if manifest_kind(file_name(file)) is TEXT)
    if notes := next((file for file in texts if not lists_images(file, folder)), None):
        raise UsageError(
            f"no images in {folder} (it has text files such as {name_below(notes, folder)}: "
            "name one as SOURCE if it lists images)"
        )


def _directory(folder: str, is_image: IsImage, listed: List) -> Source:
    images = AllImages(is_image)
    records = listed(folder, images)
    first = next(records, None)
    others = [below(folder, name) for name in images.others()] if first is None else []
    if others and is_archive(others[0]):
        covers = _scope(folder, AllImages(is_archive))
        return _archives(folder, [*map(image_uri, others)], images.skipped, covers)
    if others:
        _check_not_notes(others, folder)
        covers = _scope(folder, AllImages(lambda name: is_parquet(name) and is_on_top(name)))
        return _tables(others, folder, images.skipped, covers)
    found = chain(() if first is None else (first,), records)
    return _found(folder, found, images.skipped, _scope(folder, AllImages(is_image)))


def _glob(source: str, folder: str, pattern: str, is_image: IsImage, listed: List) -> Source:
    matches = Matches(pattern, is_image)
    records = listed(folder, matches)
    first = next(records, None)
    others = [below(folder, name) for name in matches.others()] if first is None else []
    if others and is_archive(others[0]):
        covers = _scope(folder, Matches(pattern, is_archive))
        return _archives(source, [*map(image_uri, others)], matches.skipped, covers)
    if others and holds_images(others[0]):
        covers = _scope(folder, Matches(pattern, is_parquet))
        return _tables(others, folder, matches.skipped, covers)
    matches.skip_others()
    found = chain(() if first is None else (first,), records)
    return _found(source, found, matches.skipped, _scope(folder, Matches(pattern, is_image)))


def _scope(folder: str, selection: Selection) -> Scope:
    """Whether a URI is of the selection, were it in the folder."""
    start, end = split_chain(folder)
    start = start if start.endswith("/") else f"{start}/"

    def covers(uri: str) -> bool:
        if not (uri.startswith(start) and uri.endswith(end)):
            return False
        name = name_below(uri, folder)
        folders = [str(parent) for parent in PurePosixPath(name).parents][:-1]
        return all(map(selection.enters, folders)) and selection.takes(name)

    return covers


def _found(source: str, records: Records, skipped: Counter[str], scope: Scope) -> Source:
    """A source of records without columns of their own; UsageError if there are none."""
    return _not_empty(source, Source(plan_schema(), _batches(records), skipped, scope))


def _not_empty(source: str, listing: Source) -> Source:
    first = next((batch for batch in listing.batches if batch.num_rows), None)
    if first is None:
        others = ", ".join(f"{n} {reason}" for reason, n in listing.skipped.items())
        raise UsageError(f"no images in {source}" + (f" (skipped: {others})" if others else ""))

    def all_batches() -> Iterator[pa.RecordBatch]:
        yield first
        yield from listing.batches

    return replace(listing, batches=all_batches())


def _batches(records: Records) -> Iterator[pa.RecordBatch]:
    while rows := list(islice(records, BATCH_ROWS)):
        uris, versions = zip(*rows, strict=True)
        yield pa.record_batch([uris, versions], schema=plan_schema())


def with_progress(source: Source, quiet: bool) -> Source:
    """The same source, which counts the images found on stderr, if that is a terminal."""

    def batches() -> Iterator[pa.RecordBatch]:
        with tqdm(
            desc="listing", unit=" images", leave=False, disable=True if quiet else None
        ) as bar:
            for batch in source.batches:
                bar.update(batch.num_rows)
                yield batch

    return replace(source, batches=batches())
