"""Rows -> one Parquet file of the table, all of it or nothing."""

import os
import secrets
import tempfile
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from captioner.jobs.storage.paths import OutPath, copy, files, is_store, put, put_bytes, remove
from captioner.jobs.table.fence import commit_right
from captioner.jobs.table.layout import RunFolder
from captioner.jobs.table.lease import check_lease


def commit(table: pa.Table, run: RunFolder, name: str, *, replaces: bool = False) -> OutPath:
    """Write part `name` of a run; the file's existence is the commit, on a store with `publish`.

    Rows that replace others go into the table when the run ends (replace.py), all others at once.
    A second commit of the same part replaces the first. StaleCommit if the part is no longer this
    run's to write; OSError if the file cannot be written.
    """
    path = run.handed_in(name, replaces=replaces)
    if is_store(path):
        with tempfile.TemporaryDirectory(prefix="captioner-") as scratch:
            write_whole([table], table.schema, path, Path(scratch))
    else:
        assert isinstance(run.scratch, Path)
        write_whole([table], table.schema, path, run.scratch, commit_right(run, name))
    return path


def publish(run: RunFolder, name: str, *, replaces: bool = False) -> None:
    """On a store, add what a worker has handed in to the table: the driver's half of a commit.

    TemporaryError if this run has lost its lease; OSError if the store fails.
    """
    handed_in, part = run.handed_in(name, replaces=replaces), run.part(name, replaces=replaces)
    if is_store(handed_in) and is_store(part):
        check_lease(part)
        copy(handed_in, part)


def remove_rows_of(run: RunFolder) -> None:
    """Remove all parts that a run has committed."""
    check_lease(run.out.captions)
    for folder in (run.out.captions, run.replacements):
        for part in files(folder, f"{run.run_id}-*.parquet"):
            remove(part)


def write_whole(
    tables: Iterable[pa.Table],
    schema: pa.Schema,
    path: OutPath,
    scratch: Path,
    right: AbstractContextManager[None] | None = None,
) -> int:
    """Write tables to one file, which appears in `path` at once, in the place of any other.

    Meanwhile it lies in `scratch`, a folder of the same file system, or of this machine if `path`
    is on a store. It is given its name with the `right` to do so, which on a store is this
    process's lease, too. Returns the number of its rows; a file without rows is not written, and
    one that was there removed.
    """
    temporary = scratch / f"{path.stem}.{secrets.token_hex(4)}.unfinished"
    try:
        rows = _write_durably(tables, schema, temporary)
        with right or nullcontext():
            _put_in_place(temporary, path, rows)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)
    return rows


def _put_in_place(temporary: Path, path: OutPath, rows: int) -> None:
    check_lease(path)
    if not rows:
        remove(path)
    elif is_store(path):
        put(temporary, path)
    else:
        temporary.rename(path)


def write_text_whole(text: str, path: OutPath, scratch: Path) -> None:
    """Write a small file, which is on disk, whole, when this returns; it may replace another."""
    if is_store(path):
        check_lease(path)
        put_bytes(text.encode(), path)
        return
    temporary = scratch / f"{path.name}.unfinished"
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)
    sync_folder(path.parent)


def sync_folder(folder: OutPath) -> None:
    """See to it that what was renamed into a folder, or removed from it, is so on disk."""
    if is_store(folder):
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def part_bytes(table: pa.Table) -> tuple[int, int]:
    """How large a part would be: what its rows take, and what all else does."""
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, table.schema, compression="zstd", write_statistics=True) as writer:
        writer.write_table(table)
    file = sink.getvalue()
    groups = pq.ParquetFile(pa.BufferReader(file)).metadata
    columns = range(groups.num_columns)
    rows = sum(groups.row_group(0).column(number).total_compressed_size for number in columns)
    return rows, file.size - rows


def _write_durably(tables: Iterable[pa.Table], schema: pa.Schema, path: Path) -> int:
    rows = 0
    with path.open("wb") as file:
        with pq.ParquetWriter(file, schema, compression="zstd", write_statistics=True) as writer:
            for table in tables:
                writer.write_table(table)
                rows += table.num_rows
        file.flush()
        os.fsync(file.fileno())
    return rows
