"""One new file of the table for several, where folders cannot be exchanged (folder_exchange.py).

No file system or store replaces one file and removes others in one step. So a journal in OUT/runs
first says which files will go; then the new file takes the name of the first of them; then the
others go, then the journal. Each step is on disk before the next begins. The next command that
writes to OUT completes what a killed one has left (`finish_merge`): if the new file is in place, it
removes the others; if not, nothing has happened yet.

A reader never misses a row, but may see rows twice until the others are gone. As the new file has
the first name, one that opens the files in the order of their names cannot overlook the change.
"""

import json
from collections.abc import Iterable, Sequence

import pyarrow as pa

from captioner.jobs.storage.backends.paths import OutPath
from captioner.jobs.table.read import closing, open_file
from captioner.jobs.table.writer import Writer


def merge_with_journal(
    writer: Writer,
    files: Sequence[OutPath],
    rows: int,
    tables: Iterable[pa.Table],
    schema: pa.Schema,
) -> None:
    """Replace several files by one with all their rows, under the name of the first."""
    first, *others = files
    names = [path.name for path in others]
    journal = {"file": first.name, "rows": rows, "replaces": names}
    with writer.permission():
        writer.write_text(json.dumps(journal), writer.out.merge_journal)
    writer.write(tables, schema, first)
    _remove(writer, names)


def finish_merge(writer: Writer) -> None:
    """Finish a merge that a killed process has begun, or drop one that it has only announced."""
    path = writer.out.merge_journal
    if not writer.storage.exists(path):
        return
    journal = json.loads(writer.storage.read_bytes(path))
    # Before the merge the first file has fewer rows, unless the others have none.
    in_place = _rows(writer, writer.out.captions / journal["file"]) == journal["rows"]
    _remove(writer, journal["replaces"] if in_place else [])


def _rows(writer: Writer, path: OutPath) -> int | None:
    if not writer.storage.exists(path):
        return None
    with closing(open_file(path)) as file:
        return int(file.metadata.num_rows)


def _remove(writer: Writer, names: Sequence[str]) -> None:
    with writer.permission():
        writer.storage.sync(writer.out.captions)
        writer.storage.remove_files(writer.out.captions, names, writer.scratch)
        writer.storage.remove(writer.out.merge_journal)
