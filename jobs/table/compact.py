"""Many small files of the table -> few large ones, without the rows that have a later one."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from itertools import starmap
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from captioner.jobs.errors import UsageError
from captioner.jobs.storage.failures import job_errors
from captioner.jobs.storage.paths import (
    OutPath,
    Source,
    is_store,
    out_path,
    size_of,
    source,
    sources,
)
from captioner.jobs.table.commit import write_whole
from captioner.jobs.table.exclusive_writer import only_writer
from captioner.jobs.table.folder_exchange import Twin
from captioner.jobs.table.keys import Redo, add_surplus, superseded, table_buckets
from captioner.jobs.table.layout import OutFolder
from captioner.jobs.table.merge_journal import finish_swap, swap
from captioner.jobs.table.read import opened_files, readable
from captioner.jobs.table.replace import remove_surplus
from captioner.schemas.caption_table import merged_schema, with_schema

TARGET_BYTES = 128_000_000
ROW_GROUP_ROWS = 10_000  # what is read to use a caption again (known_captions.py)


@dataclass(frozen=True)
class Compaction:
    """What became of a table: its rows, those removed, its files and their bytes."""

    table: str
    rows: int
    superseded: int
    files: int
    bytes: int
    files_before: int
    bytes_before: int


def compact(
    out: str | Path, target_bytes: int = TARGET_BYTES, *, quiet: bool = False
) -> Compaction:
    """Merge small files of the table in OUT into files of about `target_bytes`.

    Files of at least half of that stay as they are, as do those that have no small neighbour by
    name. Of an image with several rows only the latest stays. Memory does not grow with the table;
    OUT needs room for one more file of the target, and for the table's keys. Readers see every
    row once, but for what swap.py says of stores and some file systems. Killed at any moment,
    every row is there, and once after the next command that writes to OUT.

    UsageError if there is no table, or a file that is none of a table's; TemporaryError if a run
    has OUT; KeyboardInterrupt after Ctrl-C or SIGTERM.
    """
    folder = OutFolder(out_path(out))
    with job_errors(folder.root):
        _check(folder, target_bytes)
    run = folder.new_run()
    with only_writer(run) as scratch:
        before = folder.table_sizes()
        rows, removed = _remove_superseded(folder, scratch, quiet)
        merging = _Merging(folder, scratch, target_bytes)
        try:
            merging.merge(_progress(folder.table_files(), "merging", quiet))
        finally:
            finish_swap(folder, scratch)  # if a signal came between its steps
        after = folder.table_sizes()
    return Compaction(
        str(folder.captions), rows, removed, len(after), sum(after), len(before), sum(before)
    )


def _check(folder: OutFolder, target_bytes: int) -> None:
    if not folder.captions.is_dir():
        raise UsageError(f"{folder.root} holds no caption table (no folder {folder.captions})")
    if target_bytes < 1:
        raise UsageError(f"target_bytes must be a whole number above 0, not {target_bytes}")


def _progress(files: Sequence[OutPath], what: str, quiet: bool) -> "tqdm[Any]":
    return tqdm(files, what, unit=" files", disable=True if quiet else None)


def _remove_superseded(out: OutFolder, scratch: Path, quiet: bool) -> tuple[int, int]:
    """How many rows stay, and how many go because their image has a later one."""
    files = out.table_files()
    surplus: dict[OutPath, list[int]] = {}
    keys = scratch / "rows.arrow"
    rows = table_buckets(_progress(files, "reading", quiet), Redo(), keys)
    for later in superseded(rows):
        add_surplus(surplus, files, later)
    keys.unlink()
    remove_surplus(surplus, scratch)
    removed = sum(len(positions) for positions in surplus.values())
    return rows.rows - removed, removed


@dataclass(frozen=True)
class _Part:
    """A file of the table. `data` are its bytes without the footer, of which few remain merged."""

    path: OutPath
    size: int
    data: int
    rows: int
    schema: pa.Schema


def _part(path: OutPath, opened: Callable[[], Source]) -> _Part:
    data = readable(path, opened)
    size = size_of(data)
    with readable(path, lambda: pq.ParquetFile(data)) as file:
        footer = file.metadata.serialized_size
        return _Part(path, size, size - footer, file.metadata.num_rows, file.schema_arrow)


@dataclass
class _Group:
    """Neighbours by name, to be merged."""

    paths: list[OutPath] = field(default_factory=list)
    schemas: list[pa.Schema] = field(default_factory=list)  # neighbours mostly have the same
    data: int = 0
    rows: int = 0

    def add(self, part: _Part) -> None:
        self.paths.append(part.path)
        if not self.schemas or not part.schema.equals(self.schemas[-1], check_metadata=True):
            self.schemas.append(part.schema)
        self.data += part.data
        self.rows += part.rows


class _Merging:
    """Merges neighbours, so that the last file stays the newest: it has the table's columns."""

    def __init__(self, out: OutFolder, scratch: Path, target: int) -> None:
        self.out, self.scratch, self.target = out, scratch, target
        self.group = _Group()

    def merge(self, files: Iterable[OutPath]) -> None:
        """Merge what is small among all files of the table."""
        for part in starmap(_part, sources(files)):
            if self._is_large(part):
                self._end_group()
            else:
                if self.group.data + part.data > self.target:
                    self._end_group_if_large()
                self.group.add(part)
        self._end_group()

    def _is_large(self, part: _Part) -> bool:
        return part.size >= self.target / 2

    def _end_group_if_large(self) -> None:
        """Rows need less room together: a file that is still small begins the next group."""
        path = self.group.paths[0]
        self._end_group()
        merged = _part(path, lambda: source(path))
        if not self._is_large(merged):
            self.group.add(merged)

    def _end_group(self) -> None:
        group, self.group = self.group, _Group()
        if len(group.paths) < 2:
            return
        try:
            schema = merged_schema(group.schemas)
        except pa.ArrowException as error:
            first, last = group.paths[0].name, group.paths[-1].name
            where = f"the files {first} to {last} in {self.out.captions}"
            raise UsageError(f"{where} do not fit together: {error}") from error
        self._put_in_place(group, schema)

    def _put_in_place(self, group: _Group, schema: pa.Schema) -> None:
        """In the place of the first file, with the others gone."""
        first, *others = group.paths
        rows = _row_groups(group.paths, schema)
        if self._twin:
            write_whole(rows, schema, self._twin.path(first.name), self.scratch)
            self._twin.swap(first.name, [path.name for path in others])
        else:
            right = swap(self.out, self.scratch, group.paths, group.rows)
            write_whole(rows, schema, first, self.scratch, right)

    @cached_property
    def _twin(self) -> Twin | None:
        """None where a table cannot have one."""
        if is_store(self.out.captions):
            return None
        with suppress(OSError):
            return Twin(self.out.captions, self.scratch)
        return None


def _row_groups(paths: Sequence[OutPath], schema: pa.Schema) -> Iterator[pa.Table]:
    """All rows of the files, in tables of ROW_GROUP_ROWS, the last of fewer."""
    waiting: list[pa.Table] = []
    missing = ROW_GROUP_ROWS
    for rows in _rows(paths, schema):
        while rows.num_rows >= missing:
            yield pa.concat_tables([*waiting, rows.slice(0, missing)]).combine_chunks()
            rows, waiting, missing = rows.slice(missing), [], ROW_GROUP_ROWS
        waiting.append(rows)
        missing -= rows.num_rows
    if missing < ROW_GROUP_ROWS:
        yield pa.concat_tables(waiting).combine_chunks()


def _rows(paths: Sequence[OutPath], schema: pa.Schema) -> Iterator[pa.Table]:
    for _, opened in opened_files(paths):
        with opened as file:
            for batch in file.iter_batches(ROW_GROUP_ROWS):
                yield with_schema(pa.Table.from_batches([batch]), schema)
