"""SOURCE -> image records, as a stream: a directory, a glob, an image, a manifest, containers."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from captioner.jobs.errors import EmptySource, UsageError
from captioner.jobs.sources.archives.tar_archives import archive_source
from captioner.jobs.sources.folders import (
    folder_source,
    glob_source,
    not_empty,
    table_source,
)
from captioner.jobs.sources.listing.filters import has_magic
from captioner.jobs.sources.listing.local import local_records
from captioner.jobs.sources.listing.remote import remote_records
from captioner.jobs.sources.options import DEFAULT_OPTIONS, SourceOptions
from captioner.jobs.sources.s3_inventory.inventory import find_inventory, inventory_source
from captioner.jobs.sources.source import Source
from captioner.jobs.sources.standard_input import standard_input_source
from captioner.jobs.storage.attempts.statuses import failure_status
from captioner.jobs.storage.failures import listing_errors
from captioner.jobs.storage.file_types import (
    ARCHIVE_SUFFIXES,
    MANIFEST_SUFFIXES,
    is_archive,
    is_manifest,
    is_named_like_a_file,
    is_packed_otherwise,
)
from captioner.jobs.storage.filesystems import file_info
from captioner.jobs.storage.signatures import without_signature
from captioner.jobs.storage.uris import (
    STANDARD_INPUT,
    file_name,
    image_uri,
    image_version,
    info_version,
    is_http,
    is_local,
    local_path,
    parent_folder,
    split_chain,
)
from captioner.schemas.caption_table import Status
from captioner.schemas.image_record import ACCESS, ACCESS_TYPE, plan_schema


def open_source(source: str | Path, options: SourceOptions = DEFAULT_OPTIONS) -> Source:
    """Return the images that SOURCE names: a path, any URL that fsspec opens, or "-".

    The order depends on the names alone. In a directory, hidden files and folders, those that the
    options exclude and, unless they say otherwise, files without an image's extension are skipped;
    symbolic links are followed, and loops end.

    A directory without any image stands for the tar archives in it, at any depth; manifests beside
    them are skipped. Without archives, it stands for its manifests or its Parquet files of images,
    of one format, at the top or in `key=value` folders; those in other folders are skipped. A text
    file in it is a manifest only if its lines look like images' names. The first image found
    settles that it is a directory of images, whose archives and manifests are skipped. A glob
    matches images, or else archives, or else Parquet files of images. "-" is a manifest on standard
    input.

    UsageError if there is nothing to read, TemporaryError if a store does not answer.
    """
    if source == STANDARD_INPUT:
        return standard_input_source(options)
    if not is_local(str(source)):
        source = image_uri(str(source))  # with its scheme in lower case
    if manifest := find_inventory(str(source)):
        return inventory_source(manifest, options)
    if not is_local(str(source)):
        return _remote(str(source), options)
    path = Path(local_path(str(source)))
    if path.is_dir():
        return _local_directory(path, options)
    if path.is_file():
        return _file(str(path.absolute()), image_version(str(path)), options)
    if has_magic(str(path)):
        return glob_source(str(path), local_records, options, os.path.abspath)
    raise _nothing_there(str(source))


def _local_directory(path: Path, options: SourceOptions) -> Source:
    try:
        next(path.iterdir(), None)
    except OSError as error:
        raise UsageError(f"cannot list {path}: {error.strerror}") from error
    return folder_source(os.path.abspath(path), local_records, options)  # noqa: PTH100


def _remote(url: str, options: SourceOptions) -> Source:
    with listing_errors(url):
        info = _info(url)
    inner, container = split_chain(url)
    if info is not None and info["type"] == "directory":
        top, below_top = inner.split("://", 1)
        folder = f"{top}://{below_top.rstrip('/')}{container}"
        return folder_source(folder, remote_records, options)
    if info is not None:
        return _file(url, info_version(info), options)
    if has_magic(inner):
        return glob_source(url, remote_records, options, lambda base: base + container)
    if is_http(inner):
        raise _nothing_there(url)
    raise EmptySource(str(_nothing_there(url)))  # a store has no folders that could be empty


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


def _file(uri: str, version: str | None, options: SourceOptions) -> Source:
    name, image = file_name(uri), image_uri(uri)
    key = without_signature(image)

    def scope(other: str) -> bool:
        return other == key

    if is_archive(name):
        return not_empty(uri, archive_source([image], scope, options.exclusion()))
    if is_manifest(name):
        return table_source([uri], parent_folder(uri), scope, options)
    if options.is_image(name):
        access = None if key == image else {"url": image}
        record = pa.record_batch(
            [[key], [version], pa.array([access], ACCESS_TYPE)], schema=plan_schema(None, ACCESS)
        )
        return Source(record.schema, iter([record]), scope=scope)
    if is_packed_otherwise(name):
        raise UsageError(f"{uri} is compressed, but not by gzip: unpack it, or use gzip")
    known = ", ".join((*MANIFEST_SUFFIXES, *ARCHIVE_SUFFIXES))
    raise UsageError(f"{uri} is neither an image nor a manifest nor an archive ({known})")
