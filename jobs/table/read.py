"""The caption table as it lies in OUT, read in bounded memory."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from captioner.jobs.errors import TemporaryError, UsageError
from captioner.jobs.storage.failures import is_of_arrow
from captioner.jobs.storage.paths import OutPath, Source, is_store, source, sources

BATCH_ROWS = 65_536
T = TypeVar("T")


def batches_by_file(
    paths: Iterable[OutPath], columns: Sequence[str]
) -> Iterator[Iterator[pa.RecordBatch]]:
    """Columns of each file of the table, in order; UsageError for what is no such file."""
    for path, file in opened_files(paths):
        yield column_batches(path, file, columns)


def opened_files(paths: Iterable[OutPath]) -> Iterator[tuple[OutPath, pq.ParquetFile]]:
    """Files of the table, to be read one after the other; UsageError for what is none."""
    for path, opened in sources(paths):
        yield path, _opened(path, opened)


def open_file(path: OutPath) -> pq.ParquetFile:
    """A file of the table, to be read; UsageError if it is no such file."""
    return _opened(path, lambda: source(path))


def _opened(path: OutPath, opened: Callable[[], Source]) -> pq.ParquetFile:
    return readable(path, lambda: pq.ParquetFile(opened(), pre_buffer=is_store(path)))


def column_batches(
    path: OutPath, file: pq.ParquetFile, columns: Sequence[str]
) -> Iterator[pa.RecordBatch]:
    """Columns of a file of the table, which is closed in the end; UsageError if it lacks one."""
    with file:
        missing = [name for name in columns if name not in file.schema_arrow.names]
        if missing:
            raise _foreign(path, f"it has no column {missing[0]}")
        batches = file.iter_batches(BATCH_ROWS, columns=list(columns))
        while (batch := readable(path, lambda: next(batches, None))) is not None:
            yield batch.select(columns)


def readable(path: OutPath, read: Callable[[], T]) -> T:
    """What reading a file of the table gives; UsageError if it is no such file.

    TemporaryError if it is gone since the files were listed: a command that writes to OUT is at
    work.
    """
    try:
        return read()
    except FileNotFoundError as error:
        raise TemporaryError(f"{path} is gone, the table changes just now; try again") from error
    except (pa.ArrowException, OSError) as error:
        if is_store(path) and not is_of_arrow(error):
            raise
        raise _foreign(path, str(error)) from error


def _foreign(path: OutPath, reason: str) -> UsageError:
    return UsageError(f"{path} is not a file of a caption table ({reason}): move it elsewhere")
