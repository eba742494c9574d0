"""Rows -> one Parquet file of the table, all of it or nothing."""

import os
import secrets
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.folders import RunFolder
from jobs.locks import commit_right


def commit(table: pa.Table, run: RunFolder, name: str) -> Path:
    """Write part `name` of a run to the table; the file's existence is the commit.

    A second commit of the same name replaces the first. StaleCommit if the part is no longer
    this run's to write; OSError if the file cannot be written.
    """
    part = run.part(name)
    temporary = run.scratch / f"{name}.{secrets.token_hex(4)}.unfinished"
    try:
        _write_durably(table, temporary)
        with commit_right(run, name):
            temporary.rename(part)
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(part.parent)
    return part


def _write_durably(table: pa.Table, path: Path) -> None:
    with path.open("wb") as file:
        pq.write_table(table, file, compression="zstd", write_statistics=True)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
