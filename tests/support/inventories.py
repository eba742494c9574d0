"""Inventories as Amazon S3 delivers them."""

import csv
import gzip
import hashlib
import json
from collections.abc import Iterable
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import pyarrow as pa
import pyarrow.parquet as pq

CSV_SCHEMA = (
    "Bucket, Key, VersionId, IsLatest, IsDeleteMarker, Size, LastModifiedDate, ETag, StorageClass"
)
PARQUET_FIELDS = {
    "bucket": ("required binary bucket (UTF8)", pa.string()),
    "key": ("required binary key (UTF8)", pa.string()),
    "version_id": ("optional binary version_id (UTF8)", pa.string()),
    "is_latest": ("optional boolean is_latest", pa.bool_()),
    "is_delete_marker": ("optional boolean is_delete_marker", pa.bool_()),
    "size": ("optional int64 size", pa.int64()),
    "last_modified_date": (
        "optional int64 last_modified_date (TIMESTAMP(MILLIS,true))",
        pa.timestamp("ms", "UTC"),
    ),
    "e_tag": ("optional binary e_tag (STRING)", pa.string()),
    "storage_class": ("optional binary storage_class (UTF8)", pa.string()),
}
COLUMNS = list(PARQUET_FIELDS)
CURRENT = [n for n in COLUMNS if n not in ("version_id", "is_latest", "is_delete_marker")]
FORMATS = ("CSV", "Parquet")
FOLDER = "inventories/photos/all/2026-11-01T01-00Z"
TIME = 1_790_000_000_123  # ms: 2026-09-21T14:13:20.123Z


@dataclass(frozen=True)
class Version:
    """A row of an inventory, in the order of its columns."""

    bucket: str
    key: str
    version_id: str | None
    is_latest: bool
    is_delete_marker: bool
    size: int | None
    last_modified_date: int
    e_tag: str | None
    storage_class: str | None


def version(
    key: str, e_tag: str = "e1", is_latest: bool = True, storage_class: str = "STANDARD"
) -> Version:
    return Version("photos", key, "v1", is_latest, False, 7, TIME, e_tag, storage_class)


def delete_marker(key: str, is_latest: bool = True) -> Version:
    return Version("photos", key, "v2", is_latest, True, None, TIME, None, None)


def csv_field(name: str, value: Any) -> str:
    if name == "key":
        return quote_plus(value, safe="/")
    if name == "last_modified_date":
        return "2026-09-21T14:13:20.123Z"
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def write_csv(path: Path, rows: Iterable[Version], columns: list[str]) -> None:
    with gzip.open(path, "wt", newline="", encoding="ascii") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_ALL, lineterminator="\n")
        for row in rows:
            values = dict(zip(COLUMNS, astuple(row), strict=True))
            writer.writerow([csv_field(name, values[name]) for name in columns])


def write_parquet(path: Path, rows: Iterable[Version], columns: list[str]) -> None:
    schema = pa.schema([(name, PARQUET_FIELDS[name][1]) for name in columns])
    records = [dict(zip(COLUMNS, astuple(row), strict=True)) for row in rows]
    pq.write_table(pa.Table.from_pylist(records, schema), path, compression="snappy")


def file_schema(file_format: str, columns: list[str]) -> str:
    if file_format == "CSV":
        names = dict(zip(COLUMNS, CSV_SCHEMA.split(", "), strict=True))
        return ", ".join(names[name] for name in columns)
    fields = "; ".join(PARQUET_FIELDS[name][0] for name in columns)
    return f"message s3.inventory {{  {fields};}}"


def write_inventory(
    root: Path, *files: list[Version], file_format: str = "CSV", columns: list[str] = COLUMNS
) -> Path:
    """Write an inventory into a copy of the destination bucket; return its manifest.json."""
    entries = []
    suffix = {"CSV": "csv.gz", "Parquet": "parquet", "ORC": "orc"}[file_format]
    for number, rows in enumerate(files):
        key = f"inventories/photos/all/data/{number}.{suffix}"
        path = root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        write = write_parquet if file_format == "Parquet" else write_csv
        write(path, rows, columns)
        md5 = hashlib.md5(path.read_bytes()).hexdigest()
        entries.append({"key": key, "size": path.stat().st_size, "MD5checksum": md5})
    manifest = {
        "sourceBucket": "photos",
        "destinationBucket": "arn:aws:s3:::inventory",
        "version": "2016-11-30",
        "creationTimestamp": "1793494800000",
        "fileFormat": file_format,
        "fileSchema": file_schema(file_format, columns),
        "files": entries,
    }
    return write_manifest(root / FOLDER, manifest)


def write_manifest(folder: Path, manifest: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "manifest.json"
    path.write_text(json.dumps(manifest, indent=2))
    md5 = hashlib.md5(path.read_bytes()).hexdigest()
    (folder / "manifest.checksum").write_text(f"{md5}\n")
    (folder.parent / "hive" / "dt=2026-11-01-01-00").mkdir(parents=True, exist_ok=True)
    (folder.parent / "hive" / "dt=2026-11-01-01-00" / "symlink.txt").write_text("s3://...\n")
    return path


def change(manifest: Path, **fields: object) -> Path:
    return write_manifest(manifest.parent, json.loads(manifest.read_text()) | fields)
