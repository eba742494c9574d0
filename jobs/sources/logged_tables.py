"""Tables whose log says which of their files count: Delta Lake, Iceberg and Hudi."""

from contextlib import suppress
from typing import Any

from captioner.jobs.errors import UsageError
from captioner.jobs.sources.listing.s3 import is_folder
from captioner.jobs.storage.filesystems import filesystem
from captioner.jobs.storage.uris import file_name, is_http, parent_folder

_LOGS = {"_delta_log": "Delta Lake", ".hoodie": "Hudi"}
_ICEBERG = ".metadata.json"  # the end of a name in the folder `metadata`
_EXPORTS = {  # what DuckDB's extensions read
    "Delta Lake": "delta_scan",
    "Iceberg": "iceberg_scan",
}


def refuse_logged_table(folder: str) -> None:
    """Raise UsageError if a folder is a table with a log: its files have deleted rows, too."""
    if is_http(folder):
        return  # nothing says what is a folder
    tables = [folder, parent_folder(folder)] if file_name(folder) == "data" else [folder]
    for table in tables:
        fs, path = filesystem(table)
        if kind := _kind(fs, path.rstrip("/")):
            raise UsageError(f"{table} is a table of {kind}: {_remedy(kind, table)}")


def _kind(fs: Any, path: str) -> str | None:
    with suppress(OSError):  # what may not be listed
        for log, kind in _LOGS.items():
            if is_folder(fs, f"{path}/{log}"):
                return kind
        if is_folder(fs, f"{path}/metadata"):
            names = fs.ls(f"{path}/metadata", detail=False)
            return "Iceberg" if any(name.endswith(_ICEBERG) for name in names) else None
    return None


def _remedy(kind: str, table: str) -> str:
    why = "its log says which rows count, and its files have deleted rows, too; "
    files = "or name the files, if all their rows count"
    if kind not in _EXPORTS:
        return f"{why}export its rows to a manifest, {files}"
    command = f"COPY (FROM {_EXPORTS[kind]}('{table}')) TO 'images.parquet'"
    return f"{why}export them with DuckDB, {command}, and name images.parquet, {files}"
