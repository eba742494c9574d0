"""The caption table as it lies in OUT, read in bounded memory."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.errors import TemporaryError, UsageError

BATCH_ROWS = 65_536
T = TypeVar("T")


def file_batches(path: Path, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Columns of a file of the table, in order; UsageError if it is no such file."""
    with readable(path, lambda: pq.ParquetFile(path)) as file:
        missing = [name for name in columns if name not in file.schema_arrow.names]
        if missing:
            raise _foreign(path, f"it has no column {missing[0]}")
        batches = file.iter_batches(BATCH_ROWS, columns=list(columns))
        while (batch := readable(path, lambda: next(batches, None))) is not None:
            yield batch.select(columns)


def readable(path: Path, read: Callable[[], T]) -> T:
    """What reading a file of the table gives; UsageError if it is no such file.

    TemporaryError if it is gone since the files were listed: a command that writes to OUT is at
    work.
    """
    try:
        return read()
    except FileNotFoundError as error:
        raise TemporaryError(f"{path} is gone, the table changes just now; try again") from error
    except (pa.ArrowException, OSError) as error:
        raise _foreign(path, str(error)) from error


def _foreign(path: Path, reason: str) -> UsageError:
    return UsageError(f"{path} is not a file of a caption table ({reason}): move it elsewhere")
