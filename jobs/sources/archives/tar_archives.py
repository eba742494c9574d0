"""Tar archives as a source: a record for each image in them, in the order of the archive.

Samples are webdataset's: consecutive members whose names share a key. The URI of a member is what
fsspec opens, `tar://<name>::<archive>` (with `tar={"compression": "gzip"}` if it is a .tgz); a name
that is not valid UTF-8 is percent-encoded. Where several members share a name, the last is the
image, as when tar unpacks them, and the plan counts the others as listed twice.
"""

import gzip
import re
import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, groupby, islice
from operator import attrgetter
from typing import Any

import pyarrow as pa

from captioner.jobs.errors import FetchError, UsageError
from captioner.jobs.sources.archives.members import (
    DEVICES,
    LINKS,
    unheld_name,
    unsafe_name,
    warn_of_cut,
)
from captioner.jobs.sources.exclusion import NOTHING, Exclusion, why_excluded
from captioner.jobs.sources.source import Batches, Scope, Source
from captioner.jobs.storage.archives.tar_archive import SPARSE, member_name
from captioner.jobs.storage.archives.tar_headers import NoEndMarker, check_end, headers, open_tar
from captioner.jobs.storage.containers import container_version, open_archive
from captioner.jobs.storage.failures import check_final, fetch_error
from captioner.jobs.storage.file_types import container_of, is_image_name, why_no_image
from captioner.jobs.storage.signatures import without_signature
from captioner.schemas.caption_table import Status
from captioner.schemas.image_record import member_schema

BATCH_ROWS = 1000  # fewer than elsewhere, as each row may have a sidecar
MAX_JSON = 1024 * 1024  # bytes of a sidecar
ARCHIVE_SCHEMA = member_schema(pa.schema([("key", pa.string()), ("json", pa.string())]))
_KEY_AND_EXTENSION = re.compile(r"((?:.*/)?[^./]+)[.]([^/]*)", re.DOTALL)
Row = tuple[str, str | None, dict[str, Any], str | None, str | None]  # of ARCHIVE_SCHEMA


@dataclass(frozen=True)
class _Entry:
    """An image in an archive, or a sidecar, which has `json`.

    Without a key it is the archive itself, whose `error` says where reading stopped. An archive
    that cannot be opened has no error: the worker that tries again finds out why.
    """

    key: str | None = None
    name: str = ""
    offset: int = 0
    size: int = 0
    json: str | None = None
    error: str | None = None


@dataclass(frozen=True)
class _Skips:
    """What to skip in archives, the counts of what was skipped, and archives that may be cut."""

    exclusion: Exclusion
    counts: Counter[str] = field(default_factory=Counter)
    cut: dict[str, None] = field(default_factory=dict)  # in order


def archive_source(
    archives: Sequence[str], covers: Scope, exclusion: Exclusion = NOTHING
) -> Source:
    """Return the images in archives, given by absolute paths or URLs.

    `covers(archive)` returns whether the source includes an archive. Members whose names the
    `exclusion` matches are skipped. An archive that cannot be read to its end gives the images
    before the damage, and a record of its own whose error says where that is; one that cannot be
    opened gives a record for a worker to try. One without an end marker gives all its images, and a
    warning. UsageError if nothing can be read from the only archive, TemporaryError for faults of a
    remote store that may pass.
    """
    skips = _Skips(exclusion)
    damaged: set[str] = set()  # their members beyond the damage are not listed, but not gone
    rows = _every_row(archives, skips, damaged)
    first = list(islice(rows, 1))
    if len(archives) == 1 and first and first[0][0] == without_signature(archives[0]):
        raise UsageError(f"{archives[0]}: {first[0][2]['error']}")

    def scope(uri: str) -> bool:
        archive = container_of(uri)
        name = uri.removeprefix("tar://").partition("::")[0]
        may_lack = archive in damaged or (archive in skips.cut and uri != archive)
        return not may_lack and covers(archive) and not _excluding(name, exclusion)

    return Source(ARCHIVE_SCHEMA, _batches(chain(first, rows)), skips.counts, scope)


def _batches(rows: Iterator[Row]) -> Batches:
    while part := list(islice(rows, BATCH_ROWS)):
        columns = zip(zip(*part, strict=True), ARCHIVE_SCHEMA.types, strict=True)
        arrays = [pa.array(values, kind) for values, kind in columns]
        yield pa.record_batch(arrays, schema=ARCHIVE_SCHEMA)


def _every_row(archives: Sequence[str], skips: _Skips, damaged: set[str]) -> Iterator[Row]:
    """Yield the rows of archives; add those to `damaged` that cannot be read to their end."""
    for archive in archives:
        yield from _rows(archive, skips, damaged, is_only=len(archives) == 1)
    warn_of_cut([*skips.cut])


def _rows(archive: str, skips: _Skips, damaged: set[str], is_only: bool) -> Iterator[Row]:
    """Yield the rows of an archive."""
    version = None
    try:
        version = container_version(archive)
        entries = _entries(archive, skips)
        first = list(islice(entries, 1))
    except (FetchError, OSError) as error:
        check_final(archive, error)
        if is_only:
            reason = fetch_error(error)
            raise UsageError(f"{archive}: the archive cannot be opened: {reason}") from error
        damaged.add(without_signature(archive))
        yield _row(archive, version, _Entry(), None)
        return
    for _, group in groupby(chain(first, entries), attrgetter("key")):
        sample = list(group)
        sidecars = [entry.json for entry in sample if entry.json is not None]
        images = [entry for entry in sample if entry.json is None]
        if not images:
            skips.counts.update(why_no_image(entry.name) for entry in sample)
        for image in images:
            if image.key is None:
                damaged.add(without_signature(archive))
            yield _row(archive, version, image, sidecars[-1] if sidecars else None)


def _row(archive: str, version: str | None, image: _Entry, json: str | None) -> Row:
    key = without_signature(archive)
    uri = key if image.key is None else f"tar://{member_name(image.name)}::{key}"
    place = {"container": archive, "offset": image.offset, "size": image.size}
    member = place | {"error": image.error}
    return uri, version, member, image.key and member_name(image.key), json


def _entries(archive: str, skips: _Skips) -> Iterator[_Entry]:
    """Yield the images and sidecars of an archive and last, if it is damaged, the archive itself.

    FetchError or OSError if it cannot be opened.
    """
    end = 0
    try:
        with open_archive(archive) as file, open_tar(file) as tar:
            for header in headers(tar):
                if entry := _entry(tar, header, skips):
                    yield entry
                end = header.offset_data + header.size
            check_end(file)
    except NoEndMarker:
        skips.cut[without_signature(archive)] = None
    except Exception as error:  # each store, zlib and tarfile have errors of their own
        if isinstance(error, FetchError | MemoryError):
            check_final(archive, error)
        if end == 0 and not _is_damage(error):
            raise
        reason = str(error) or type(error).__name__
        yield _Entry(error=f"the archive cannot be read beyond byte {end}: {reason}")


def _is_damage(error: Exception) -> bool:
    if isinstance(error, FetchError):
        return error.status is Status.UNREADABLE
    return not isinstance(error, OSError) or isinstance(error, gzip.BadGzipFile)


def _entry(tar: tarfile.TarFile, header: tarfile.TarInfo, skips: _Skips) -> _Entry | None:
    """Return a member that is an image or a sidecar; count others and return None."""
    if header.isdir():
        return None
    match = _KEY_AND_EXTENSION.fullmatch(header.name)
    if reason := _why_skipped(header, match, skips.exclusion):
        skips.counts[reason] += 1
        return None
    assert match
    if match[2].lower() == "json":
        file = tar.extractfile(header)
        assert file, "a regular file"
        return _Entry(match[1], header.name, json=file.read().decode(errors="replace"))
    error = SPARSE if header.issparse() else None
    return _Entry(match[1], header.name, header.offset_data, header.size, error=error)


def _excluding(name: str, exclusion: Exclusion) -> str | None:
    """Return the pattern that leaves a member out, or None."""
    return exclusion.of(name.removeprefix("./"))


def _why_skipped(
    header: tarfile.TarInfo, match: re.Match[str] | None, exclusion: Exclusion
) -> str | None:
    if header.issym() or header.islnk():
        return LINKS
    if header.ischr() or header.isblk() or header.isfifo():
        return DEVICES
    name = member_name(header.name)
    if reason := unsafe_name(header.name) or unheld_name(name):
        return reason
    if pattern := _excluding(name, exclusion):
        return why_excluded(pattern)
    if any(part.startswith(".") and part not in (".", "..") for part in header.name.split("/")):
        return "hidden"
    is_sidecar = match is not None and match[2].lower() == "json"
    if is_sidecar and header.size > MAX_JSON:
        return f"sidecars of more than {MAX_JSON} bytes"
    is_image = match is not None and is_image_name(header.name)
    return None if header.isreg() and (is_image or is_sidecar) else why_no_image(header.name)
