"""Many small files of the table -> few large ones, without superseded rows."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from captioner.jobs.errors import UsageError
from captioner.jobs.storage.backends.backend import backend_of, open_ahead
from captioner.jobs.storage.backends.paths import OutPath, out_path
from captioner.jobs.storage.failures import job_errors
from captioner.jobs.table.compaction.folder_exchange import FolderExchange, folder_exchange
from captioner.jobs.table.compaction.merge_journal import finish_merge, merge_with_journal
from captioner.jobs.table.exclusive_writer import exclusive_writer
from captioner.jobs.table.keys import Redo, superseded, table_buckets
from captioner.jobs.table.layout import OutFolder
from captioner.jobs.table.read import closing, opened_files, readable, rechunked
from captioner.jobs.table.replace import remove_surplus
from captioner.jobs.table.threshold import settle_threshold
from captioner.jobs.table.writer import Writer
from captioner.schemas.caption_table import merged_schema, with_schema

TARGET_BYTES = 128_000_000
ROW_GROUP_ROWS = 10_000  # read to reuse one caption (known_captions.py)


@dataclass(frozen=True)
class Compaction:
    """The result of a compaction: rows kept and removed, files and bytes, now and before."""

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

    Files of at least half of that stay, as do those without a small neighbour by name; superseded
    rows go. Memory does not grow with the table; OUT needs room for one merged file, and for the
    table's keys. Raise UsageError without a table or for a foreign file in it, TemporaryError if a
    run is at work in OUT, and KeyboardInterrupt after Ctrl-C or SIGTERM. For readers, see
    jobs/table/README.md.
    """
    folder = OutFolder(out_path(out))
    with job_errors(folder.root):
        _check(folder, target_bytes)
    run = folder.new_run()
    with exclusive_writer(run) as writer:
        before = folder.table_sizes()
        settle_threshold(None, writer)
        rows, removed = _remove_superseded(writer, quiet)
        merging = _Merging(writer, target_bytes)
        try:
            merging.merge(_progress(folder.table_files(), "merging", quiet))
        finally:
            finish_merge(writer)  # if a signal came between its steps
        after = folder.table_sizes()
    return Compaction(
        str(folder.captions), rows, removed, len(after), sum(after), len(before), sum(before)
    )


def _check(folder: OutFolder, target_bytes: int) -> None:
    folder.require_table()
    if target_bytes < 1:
        raise UsageError(f"target_bytes must be a whole number above 0, not {target_bytes}")


def _progress(files: Sequence[OutPath], what: str, quiet: bool) -> "tqdm[Any]":
    return tqdm(files, what, unit=" files", disable=True if quiet else None)


def _remove_superseded(writer: Writer, quiet: bool) -> tuple[int, int]:
    """Remove superseded rows; return how many rows stayed, and how many went."""
    files = writer.out.table_files()
    keys = writer.scratch / "rows.arrow"
    rows = table_buckets(_progress(files, "reading", quiet), Redo(), keys)
    surplus = superseded(rows, files)
    keys.unlink()
    remove_surplus(surplus, writer)
    removed = sum(len(positions) for positions in surplus.values())
    return rows.rows - removed, removed


@dataclass(frozen=True)
class _Part:
    """A file of the table; `data` are its bytes without the footer, which merging shrinks."""

    path: OutPath
    size: int
    data: int
    rows: int
    schema: pa.Schema


def _part(path: OutPath, opened: Callable[[], pa.NativeFile]) -> _Part:
    with readable(path, opened) as data:
        size = data.size()
        file = readable(path, lambda: pq.ParquetFile(data))
        footer = file.metadata.serialized_size
        return _Part(path, size, size - footer, file.metadata.num_rows, file.schema_arrow)


@dataclass
class _Group:
    """A group of neighbours by name, to be merged into one file."""

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
    """A merge of neighbours, so that the last file stays the newest, whose column types count."""

    def __init__(self, writer: Writer, target: int) -> None:
        self.writer, self.target = writer, target
        self.group = _Group()

    def merge(self, files: Iterable[OutPath]) -> None:
        """Merge the small files among all files of the table."""
        for path, opened in open_ahead(files):
            part = _part(path, opened)
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
        """End the group; merging saves room, so a file that is still small begins the next."""
        path = self.group.paths[0]
        self._end_group()
        merged = _part(path, lambda: backend_of(path).open(path))
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
            where = f"the files {first} to {last} in {self.writer.out.captions}"
            raise UsageError(f"{where} do not fit together: {error}") from error
        self._put_in_place(group, schema)

    def _put_in_place(self, group: _Group, schema: pa.Schema) -> None:
        """Replace the files of the group by one, under the name of the first."""
        first, *others = (path.name for path in group.paths)
        rows = rechunked(_rows(group.paths, schema), ROW_GROUP_ROWS)
        if self._exchange:
            self.writer.write(rows, schema, self._exchange.path(first))
            self._exchange.apply(first, others)
        else:
            merge_with_journal(self.writer, group.paths, group.rows, rows, schema)

    @cached_property
    def _exchange(self) -> FolderExchange | None:
        return folder_exchange(self.writer)


def _rows(paths: Sequence[OutPath], schema: pa.Schema) -> Iterator[pa.Table]:
    for _, opened in opened_files(paths):
        with closing(opened) as file:
            for batch in file.iter_batches(ROW_GROUP_ROWS):
                yield with_schema(pa.Table.from_batches([batch]), schema)
