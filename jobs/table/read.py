"""The caption table as it lies in OUT, read in bounded memory."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from captioner.jobs.errors import TemporaryError, UsageError
from captioner.jobs.storage.backends.backend import backend_of, open_ahead
from captioner.jobs.storage.backends.paths import OutPath
from captioner.jobs.storage.failures import StoreError

BATCH_ROWS = 65_536
T = TypeVar("T")


def opened_files(paths: Iterable[OutPath]) -> Iterator[tuple[OutPath, pq.ParquetFile]]:
    """Yield each path with its opened file of the table; UsageError for a foreign file."""
    for path, opened in open_ahead(paths):
        yield path, _opened(path, opened)


def open_file(path: OutPath) -> pq.ParquetFile:
    """Open a file of the table; raise UsageError for a foreign file."""
    return _opened(path, lambda: backend_of(path).open(path))


def _opened(path: OutPath, opened: Callable[[], pa.NativeFile]) -> pq.ParquetFile:
    return readable(path, lambda: backend_of(path).open_parquet(opened()))


@contextmanager
def closing(file: pq.ParquetFile) -> Iterator[pq.ParquetFile]:
    """Close a file in the end, and what it reads from, which pyarrow leaves open by itself."""
    try:
        yield file
    finally:
        file.close(force=True)


def column_batches(
    path: OutPath, file: pq.ParquetFile, columns: Sequence[str], rows: int = BATCH_ROWS
) -> Iterator[pa.RecordBatch]:
    """Yield columns of a file of the table, then close it; raise UsageError if it lacks one."""
    with closing(file):
        missing = [name for name in columns if name not in file.schema_arrow.names]
        if missing:
            raise _foreign(path, f"it has no column {missing[0]}")
        batches = file.iter_batches(rows, columns=list(columns))
        while (batch := readable(path, lambda: next(batches, None))) is not None:
            yield batch.select(columns)


def rechunked(tables: Iterable[pa.Table], rows: int) -> Iterator[pa.Table]:
    """Yield the same rows in tables of `rows` rows; the last one may have fewer."""
    waiting: list[pa.Table] = []
    missing = rows
    for table in tables:
        while table.num_rows >= missing:
            yield pa.concat_tables([*waiting, table.slice(0, missing)]).combine_chunks()
            table, waiting, missing = table.slice(missing), [], rows
        waiting.append(table)
        missing -= table.num_rows
    if missing < rows:
        yield pa.concat_tables(waiting).combine_chunks()


def readable(path: OutPath, read: Callable[[], T]) -> T:
    """Call `read` on a file of the table; UsageError if it is not one.

    TemporaryError if the file has disappeared since it was listed: a command is writing to OUT.
    """
    try:
        return read()
    except FileNotFoundError as error:
        raise TemporaryError(
            f"{path} disappeared while the table was being rewritten; try again"
        ) from error
    except StoreError:
        raise
    except (pa.ArrowException, OSError) as error:
        raise _foreign(path, str(error)) from error


def _foreign(path: OutPath, reason: str) -> UsageError:
    verify = f"`captioner verify {path.parent.parent}` tells what is wrong with the table"
    return UsageError(
        f"{path} is not a file of a caption table ({reason}): move it elsewhere; {verify}"
    )
