"""One new file of the table for several, where folders cannot be exchanged.

Nothing there renames one file and removes others in one step. So a journal in OUT/runs says which
files are to go, before the new one is given the name of the first of them; then the others go, then
the journal. The next command that writes to OUT does what a killed one has left (`finish_swap`): if
the new file is in place it removes the others, and if it is not, nothing has happened yet.

What a reader sees: it never misses a row. From the first renaming to the last it sees rows of the
others twice: for one fsync of the folder and one rename a file (out of the table, because to free a
file's room takes much longer), and if the process is killed just then, until the next command that
writes to OUT. A reader that listed the files before finds some gone: it must list again. As the new
file has the first name, one that opens files in the order of their names notices in any case; one
in any other order, and that takes minutes (Dask), may have read old files when it comes to the new.

Each step is on disk before the next begins. On an object store, the new object is put over the
first one instead of being renamed, and the others are deleted, many by a request; what a
process does that was suspended in between: see lease.py.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from captioner.jobs.storage.paths import OutPath, is_store, remove, remove_objects
from captioner.jobs.table.commit import sync_folder, write_text_whole
from captioner.jobs.table.layout import OutFolder
from captioner.jobs.table.lease import check_lease
from captioner.jobs.table.read import open_file


@contextmanager
def swap(out: OutFolder, scratch: Path, files: Sequence[OutPath], rows: int) -> Iterator[None]:
    """In this context a new file takes the name of the first of the files; then the others go.

    It has all their rows, so many. It is the `right` for `write_whole`.
    """
    first, *others = files
    journal = {"file": first.name, "rows": rows, "replaces": [path.name for path in others]}
    write_text_whole(json.dumps(journal), out.swap_journal, scratch)
    yield
    _remove(out, scratch, others)


def finish_swap(out: OutFolder, scratch: Path) -> None:
    """Finish what a killed process has begun, or forget what it has only announced."""
    if not out.swap_journal.exists():
        return
    journal = json.loads(out.swap_journal.read_text(encoding="utf-8"))
    in_place = _rows(out.captions / journal["file"]) == journal["rows"]
    _remove(out, scratch, [out.captions / name for name in journal["replaces"] if in_place])


def _rows(path: OutPath) -> int | None:
    """Of a file of the table; before the swap it has fewer than after, or the others have none."""
    if not path.exists():
        return None
    with open_file(path) as file:
        return int(file.metadata.num_rows)


def _remove(out: OutFolder, scratch: Path, files: Sequence[OutPath]) -> None:
    check_lease(out.captions)
    sync_folder(out.captions)
    if is_store(out.captions):
        remove_objects(out.captions, files)
    else:
        for path in files:
            with suppress(FileNotFoundError):
                path.rename(scratch / path.name)
    sync_folder(out.captions)
    remove(out.swap_journal)
    for path in files:
        (scratch / path.name).unlink(missing_ok=True)
