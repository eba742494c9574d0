"""S3 Inventory: a bucket's objects as Amazon S3 lists them every day, in CSV or Parquet files.

SOURCE is the `manifest.json` of an inventory, or the folder of its configuration, which stands for
the newest manifest in it; either in S3 or in a copy on disk.
"""

import json
import re
from collections import Counter
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from captioner.jobs.errors import UsageError
from captioner.jobs.sources.empty import no_images
from captioner.jobs.sources.exclusion import Exclusion, why_excluded
from captioner.jobs.sources.listing.filters import has_magic
from captioner.jobs.sources.listing.s3 import is_folder
from captioner.jobs.sources.options import SourceOptions
from captioner.jobs.sources.s3_inventory.data_files import check_md5, data_rows
from captioner.jobs.sources.source import Batches, Source
from captioner.jobs.storage.failures import listing_errors
from captioner.jobs.storage.file_types import IMAGE_SUFFIXES, is_named_like_a_file, why_no_image
from captioner.jobs.storage.filesystems import filesystem
from captioner.jobs.storage.uris import file_name, is_local, local_path, scheme
from captioner.schemas.image_record import plan_schema

MAX_MANIFEST = 64 * 1024 * 1024  # bytes
MAX_MD5 = 1024  # bytes of the file with its MD5
_HIDDEN = r"(^|/)\."  # of a key
_SUFFIX = r"[^/](?P<suffix>\.[A-Za-z]\w{1,5})$"  # of a key; those that are counted are not longer
_DATED = re.compile(r"\d{4}-\d\d-\d\dT\d\d-\d\dZ")


@dataclass(frozen=True)
class _Inventory:
    """The contents of a manifest.json: columns, as Parquet spells them, and each file's MD5."""

    bucket: str
    is_csv: bool
    columns: list[str]
    files: list[tuple[str, str]]


def find_inventory(source: str) -> str | None:
    """Return the manifest.json that SOURCE is or stands for; None if it is something else.

    A folder is an inventory's if it has a `hive/`, which Amazon S3 puts beside the dated folders.
    """
    if not is_local(source):
        if source.endswith(".json"):
            return source
        return _newest(source) if _may_be_folder_in_s3(source) else None
    path = local_path(source)
    if Path(path).is_dir():
        return _newest(path)
    return path if path.endswith(".json") and Path(path).is_file() else None


def _may_be_folder_in_s3(source: str) -> bool:
    """Return False for a name like a file's: probing it would need the right to list."""
    if scheme(source) not in ("s3", "s3a") or has_magic(source):
        return False
    return source.endswith("/") or not is_named_like_a_file(file_name(source))


def _newest(folder: str) -> str | None:
    with listing_errors(folder):
        files, path = filesystem(folder)
        try:
            is_inventory = is_folder(files, f"{path}/hive")
        except PermissionError:  # a file may still be readable; listing a folder explains more
            return None
        if not is_inventory:
            return None
        names = (child.rstrip("/").rpartition("/")[2] for child in files.ls(path, detail=False))
        dated = sorted(filter(_DATED.fullmatch, names), reverse=True)
        manifests = (f"{name}/manifest.json" for name in dated)  # written last
        newest = next((name for name in manifests if files.exists(f"{path}/{name}")), None)
    return newest and f"{folder.rstrip('/')}/{newest}"


def inventory_source(manifest: str, options: SourceOptions) -> Source:
    """Return the images of an inventory.

    An image is the latest version of an object whose key has an image's extension, or any, and is
    not excluded. Its version is its ETag, as in a listing of the bucket, or, if the inventory
    has no ETags, time and size. An archived object is an image like any other: its row will say
    that it cannot be read.

    UsageError for what is not an inventory, for ORC, and, while the batches are read, for a damaged
    data file, of which no row is used, and for an inventory without images.
    """
    inventory = _read_manifest(manifest)
    suffixes = None if options.any_extension else IMAGE_SUFFIXES
    exclusion = options.exclusion()
    skipped: Counter[str] = Counter()
    start = f"s3://{inventory.bucket}/"

    def batches() -> Batches:
        is_empty = True
        for url, md5 in inventory.files:
            for rows in data_rows(url, md5, inventory.is_csv, inventory.columns):
                images = _not_excluded(_images(rows, suffixes, skipped), exclusion, skipped)
                if images.num_rows:
                    is_empty = False
                    yield _records(images)
        if is_empty:
            raise no_images(f"the inventory {manifest}", skipped)

    def scope(uri: str) -> bool:
        key = uri.removeprefix(start)
        is_named = suffixes is None or key.lower().endswith(suffixes)
        is_left_out = re.search(_HIDDEN, key) or key.endswith("/") or exclusion.of(key)
        return key != uri and is_named and not is_left_out

    return Source(plan_schema(), batches(), skipped, scope)


def _read_manifest(url: str) -> _Inventory:
    with listing_errors(url, "read"):
        files, path = filesystem(url)
        text: bytes = files.cat_file(path, end=MAX_MANIFEST)
        checksum = f"{path.rpartition('/')[0]}/manifest.checksum"
        md5: bytes | None = (
            files.cat_file(checksum, end=MAX_MD5) if files.exists(checksum) else None
        )
    if len(text) == MAX_MANIFEST:
        raise UsageError(f"{url} is no inventory's: it has {MAX_MANIFEST} bytes or more")
    if md5 is not None:
        check_md5(url, BytesIO(text), md5.decode("latin-1"))
    try:
        return _inventory(url, json.loads(text))
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{url} is not JSON: {error}") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            f"{url} is not an S3 Inventory's manifest.json, which has sourceBucket, "
            "destinationBucket, fileFormat, fileSchema and files, each with key and MD5checksum"
        ) from error


def _inventory(url: str, manifest: dict[str, Any]) -> _Inventory:
    file_format = manifest["fileFormat"]
    if file_format not in ("CSV", "Parquet"):
        raise UsageError(
            f"{url}: this inventory's format is {file_format}, which cannot be read: "
            "configure CSV or Parquet"
        )
    columns = _columns(manifest["fileSchema"], file_format)
    if missing := {"bucket", "key"} - set(columns):
        raise UsageError(
            f"{url}: this inventory has no column {min(missing)}; it has: {', '.join(columns)}"
        )
    bucket = manifest["destinationBucket"].rpartition(":")[2]  # arn:aws:s3:::name
    files = [(_data_file(url, bucket, f["key"]), f["MD5checksum"]) for f in manifest["files"]]
    return _Inventory(manifest["sourceBucket"], file_format == "CSV", columns, files)


def _columns(schema: str, file_format: str) -> list[str]:
    if file_format == "Parquet":  # message s3.inventory { required binary key (UTF8); ... }
        return re.findall(r"(?:required|optional)\s+\w+\s+(\w+)", schema)
    return [re.sub(r"\B(?=[A-Z])", "_", name.strip()).lower() for name in schema.split(",")]


def _data_file(manifest: str, bucket: str, key: str) -> str:
    """Return the path of a data file beside a manifest on disk, or else its URL in S3."""
    folders = Path(manifest).absolute().parents if is_local(manifest) else ()
    copies = (folder / key for folder in folders)
    return next((str(copy) for copy in copies if copy.is_file()), f"s3://{bucket}/{key}")


def _images(
    rows: pa.RecordBatch, suffixes: tuple[str, ...] | None, skipped: Counter[str]
) -> pa.RecordBatch:
    """Return the rows of images; count the others."""
    keys = rows.column("key")
    why_not = {
        "delete markers": _flag(rows, "is_delete_marker", False),
        "older versions": pc.invert(_flag(rows, "is_latest", True)),
        "folder markers": pc.ends_with(keys, "/"),
        "hidden": pc.match_substring_regex(keys, _HIDDEN),
    }
    is_image = pa.repeat(True, len(keys))
    for reason, is_reason in why_not.items():
        if count := pc.sum(pc.and_(is_image, is_reason)).as_py():
            skipped[reason] += count
            is_image = pc.and_not(is_image, is_reason)
    if suffixes is not None:
        ending = f"({'|'.join(map(re.escape, suffixes))})$"
        is_named = pc.match_substring_regex(keys, ending, ignore_case=True)
        _count_others(keys.filter(pc.and_not(is_image, is_named)), skipped)
        is_image = pc.and_(is_image, is_named)
    return rows.filter(is_image)


def _count_others(keys: pa.Array, skipped: Counter[str]) -> None:
    """Count keys without an image's extension; there may be many, but with few extensions."""
    suffixes = pc.struct_field(pc.extract_regex(keys, _SUFFIX), "suffix")
    for found in pc.utf8_lower(suffixes).value_counts().to_pylist():
        skipped[why_no_image(f"key{found['values'] or ''}")] += found["counts"]


def _not_excluded(
    images: pa.RecordBatch, exclusion: Exclusion, skipped: Counter[str]
) -> pa.RecordBatch:
    """Return the images that are not excluded; count the others by pattern."""
    patterns = [exclusion.of(key) for key in images.column("key").to_pylist()]
    if not any(patterns):
        return images
    skipped.update(why_excluded(pattern) for pattern in patterns if pattern)
    return images.filter(pa.array([pattern is None for pattern in patterns]))


def _flag(rows: pa.RecordBatch, name: str, otherwise: bool) -> pa.Array:
    """Return a column of booleans, which an inventory of current versions does not have."""
    if name not in rows.schema.names:
        return pa.repeat(otherwise, rows.num_rows)
    return pc.fill_null(rows.column(name), otherwise)


def _records(images: pa.RecordBatch) -> pa.RecordBatch:
    uris = pc.binary_join_element_wise("s3:/", images.column("bucket"), images.column("key"), "/")
    return pa.record_batch([uris, _versions(images)], schema=plan_schema())


def _versions(images: pa.RecordBatch) -> pa.Array:
    names = images.schema.names
    if "e_tag" in names:
        return pc.utf8_trim(images.column("e_tag"), '"')
    if "size" not in names or "last_modified_date" not in names:
        return pa.nulls(images.num_rows, pa.string())
    times = images.column("last_modified_date")
    if pa.types.is_timestamp(times.type):
        times = pc.strftime(times, "%Y-%m-%dT%H:%M:%SZ")  # as CSV files have it
    return pc.binary_join_element_wise(times, images.column("size").cast(pa.string()), "-")
