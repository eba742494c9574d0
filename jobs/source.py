"""SOURCE -> image records, as a stream: a directory, a glob, one image, or a manifest."""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from jobs.errors import UsageError
from jobs.inventory import find_inventory, inventory_records
from jobs.local_listing import Records, local_records
from jobs.manifest import manifest_records
from jobs.manifest_kinds import MANIFEST_SUFFIXES, manifest_kind
from jobs.remote_listing import listing_errors, remote_records
from jobs.selection import (
    IMAGE_SUFFIXES,
    AllImages,
    IsImage,
    Matches,
    Selection,
    has_magic,
    is_any_name,
    is_image_name,
    split_glob,
)
from jobs.storage import failure_status, filesystem
from jobs.uris import (
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
from schemas.caption_table import Status
from schemas.image_record import plan_schema

BATCH_ROWS = 10_000

List = Callable[[str, Selection], Records]  # of a folder


@dataclass(frozen=True)
class Source:
    """A listing: batches of `schema` (a plan's), to be read once.

    `skipped` counts, by reason, what was found and is no image; it grows while the batches are
    read. `scope` tells of any URI whether the source would list it if it were there.
    """

    schema: pa.Schema
    batches: Iterator[pa.RecordBatch]
    skipped: Counter[str] = field(default_factory=Counter)
    scope: Callable[[str], bool] = lambda _uri: True


def open_source(source: str | Path, any_extension: bool = False) -> Source:
    """The images that SOURCE names: a path, or any URL that fsspec opens.

    The order depends on the names alone. Of a directory, hidden files and folders and, unless
    `any_extension`, files without an image's extension are skipped; symbolic links are followed,
    loops end.

    A directory without any image is a manifest if it has manifests, of one kind, in itself or in
    `key=value` folders; those in other folders are skipped. The first image found settles that
    it is a directory of images, whose manifests are skipped.

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
        fs, path = filesystem(url)
        info = _info(fs, path, url)
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


def _info(fs: Any, path: str, url: str) -> Mapping[str, Any] | None:
    """What a store tells of a URL; None if it has nothing there.

    An HTTP server does not say what a directory is: what is named neither like an image nor like
    a manifest is taken for one.
    """
    inner, _ = split_chain(url)
    is_file = is_image_name(file_name(url)) or manifest_kind(file_name(url))
    if inner.endswith("/") or (is_http(url) and not is_file and not has_magic(inner)):
        return {"type": "directory"}
    try:
        info: Mapping[str, Any] = fs.info(path)
    except FileNotFoundError as error:
        reason = error.__cause__  # fsspec says so of whatever goes wrong by HTTP
        if isinstance(reason, Exception) and is_http(url) and not _says_not_found(reason):
            raise reason from None
        return None
    return info


def _says_not_found(error: Exception) -> bool:
    return failure_status(error) == Status.NOT_FOUND


def _nothing_there(source: str) -> UsageError:
    return UsageError(f"{source} does not exist; SOURCE is a directory, a glob or a manifest")


def _file(uri: str, version: str | None, is_image: IsImage) -> Source:
    name = file_name(uri)
    if manifest_kind(name):
        return Source(*manifest_records([uri], parent_folder(uri)))
    if is_image(name):
        found = iter([(image_uri(uri), version)])
        return _found(uri, found, Counter(), scope=lambda other: other == image_uri(uri))
    known = ", ".join(MANIFEST_SUFFIXES)
    raise UsageError(f"{uri} is neither an image nor a manifest ({known})")


def _directory(folder: str, is_image: IsImage, listed: List) -> Source:
    images = AllImages(is_image)
    records = listed(folder, images)
    first = next(records, None)
    if first is None and (names := images.manifests()):
        files = [below(folder, name) for name in names]
        return Source(*manifest_records(files, folder), images.skipped)
    found = chain(() if first is None else (first,), records)
    return _found(folder, found, images.skipped, _scope(folder, AllImages(is_image)))


def _glob(source: str, folder: str, pattern: str, is_image: IsImage, listed: List) -> Source:
    matches = Matches(pattern, is_image)
    scope = _scope(folder, Matches(pattern, is_image))
    return _found(source, listed(folder, matches), matches.skipped, scope)


def _scope(folder: str, selection: Selection) -> Callable[[str], bool]:
    """Whether a URI is of the selection, were it in the folder."""
    start, end = (folder, "") if is_local(folder) else split_chain(folder)
    start = start if start.endswith("/") else f"{start}/"

    def covers(uri: str) -> bool:
        is_below = uri.startswith(start) and uri.endswith(end)
        return is_below and selection.takes(name_below(uri, folder))

    return covers


def _found(
    source: str, records: Records, skipped: Counter[str], scope: Callable[[str], bool]
) -> Source:
    """A source of records without columns of their own; UsageError if there are none."""
    batches = _batches(records)
    first = next(batches, None)
    if first is None:
        others = ", ".join(f"{n} {reason}" for reason, n in skipped.items())
        raise UsageError(f"no images in {source}" + (f" (skipped: {others})" if others else ""))

    def all_batches() -> Iterator[pa.RecordBatch]:
        yield first
        yield from batches

    return Source(plan_schema(), all_batches(), skipped, scope)


def _batches(records: Records) -> Iterator[pa.RecordBatch]:
    while rows := list(islice(records, BATCH_ROWS)):
        uris, versions = zip(*rows, strict=True)
        yield pa.record_batch([uris, versions], schema=plan_schema())
