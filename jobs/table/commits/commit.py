"""Rows -> one Parquet file of the table, all of it or nothing."""

import os
import secrets
from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq

from captioner.jobs.storage.backends.backend import backend_of, is_store
from captioner.jobs.storage.backends.paths import OutPath
from captioner.jobs.table.commits.fence import FencedParts
from captioner.jobs.table.commits.staged_parts import StagedParts
from captioner.jobs.table.layout import RunFolder

Parts: TypeAlias = FencedParts | StagedParts  # with one interface for driver and workers


def parts_of(run: RunFolder) -> Parts:
    """Return the parts of a run, which know who may still commit them."""
    return StagedParts(run) if is_store(run.root) else FencedParts(run)


def commit(table: pa.Table, run: RunFolder, name: str, *, replaces: bool = False) -> OutPath:
    """Write part `name` of a run; its file is the commit, on a store once it is published.

    A second commit of the same part replaces the first. Raise StaleCommit if the run lost the right
    to write the part, OSError if the file cannot be written.
    """
    parts = parts_of(run)
    path = parts.path(name, replaces=replaces)
    with run.storage.work_folder(run.scratch) as folder:
        write_whole([table], table.schema, path, folder, parts.permission(name))
    return path


def write_whole(
    tables: Iterable[pa.Table],
    schema: pa.Schema,
    path: OutPath,
    folder: Path,
    permission: AbstractContextManager[None],
) -> int:
    """Write tables to one file, which appears at `path` whole and durably; replace any file there.

    It is prepared in `folder`, and takes its name while `permission` is held. Return the number of
    rows; a file without rows is not written, and an existing one is removed.
    """
    unfinished = folder / f"{path.stem}.{secrets.token_hex(4)}.unfinished"
    storage = backend_of(path)
    try:
        rows = _write_durably(tables, schema, unfinished)
        with permission:
            if rows:
                storage.put(unfinished, path)
            else:
                storage.remove(path)
                storage.sync(path.parent)
    finally:
        unfinished.unlink(missing_ok=True)
    return rows


def _repeating(schema: pa.Schema) -> bool | list[str]:
    """Return the columns to write with dictionaries: all but vectors, which are read slower so."""
    plain = [field.name for field in schema if not pa.types.is_fixed_size_list(field.type)]
    return len(plain) == len(schema) or plain


def _write_durably(tables: Iterable[pa.Table], schema: pa.Schema, path: Path) -> int:
    rows = 0
    with path.open("wb") as file:
        options = {"use_dictionary": _repeating(schema), "write_statistics": True}
        options["write_page_checksum"] = True  # so that `captioner verify` sees every changed bit
        with pq.ParquetWriter(file, schema, compression="zstd", **options) as writer:
            for table in tables:
                writer.write_table(table)
                rows += table.num_rows
        file.flush()
        os.fsync(file.fileno())
    return rows
