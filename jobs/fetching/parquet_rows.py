"""The bytes of images in the rows of a Parquet file."""

from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import accumulate

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from captioner.jobs.errors import FetchError
from captioner.jobs.fetching.fetch import too_large
from captioner.jobs.storage.containers import BUFFER, open_parquet
from captioner.jobs.storage.failures import as_fetch_error
from captioner.jobs.storage.file_types import image_column, is_image_struct
from captioner.schemas.caption_table import Status
from captioner.schemas.image_record import Member

READ_ROWS = 8  # images in memory at once


@contextmanager
def open_rows(
    container: str, max_bytes: int, column: str | None = None
) -> Iterator[Callable[[Member], bytes]]:
    """Open a file and yield a function that returns a row's bytes; fast for rows in order.

    `column` names the one with the images where it has to be chosen.
    """
    with open_parquet(container, BUFFER) as file:
        image = image_column(container, file.schema_arrow, column)
        yield _Rows(str(image), file, max_bytes).read


class _Rows:
    """The image column of a file, read a few rows at a time, and only the row groups asked for."""

    def __init__(self, image: str, file: pq.ParquetFile, max_bytes: int) -> None:
        self.image = image
        is_struct = is_image_struct(file.schema_arrow.field(image).type)
        self.leaf = f"{self.image}.bytes" if is_struct else self.image
        self.file, self.max_bytes = file, max_bytes
        sizes = [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)]
        self.starts = list(accumulate(sizes, initial=0))[:-1]
        self.batches: Iterator[pa.RecordBatch] = iter(())
        self.group, self.first, self.values = -1, 0, pa.array([], pa.binary())
        self.failed: dict[int, FetchError] = {}  # by row group: later rows fail, too

    def read(self, member: Member) -> bytes:
        group = bisect_right(self.starts, member.offset) - 1
        if group in self.failed:
            raise self.failed[group]
        try:
            value = as_fetch_error(partial(self._value, group, member.offset))
        except FetchError as error:
            self.failed[group] = error
            raise
        if not value.is_valid:
            raise FetchError(Status.NOT_FOUND, "the row has no bytes")
        if value.as_buffer().size > self.max_bytes:
            raise too_large(self.max_bytes)
        return value.as_py()

    def _value(self, group: int, row: int) -> pa.Scalar:
        if group != self.group or row < self.first:
            self.group, self.first, self.values = group, self.starts[group], self.values[:0]
            self.batches = self.file.iter_batches(READ_ROWS, [group], [self.leaf])
        while row >= self.first + len(self.values):
            self._advance()
        return self.values[row - self.first]

    def _advance(self) -> None:
        try:
            values = next(self.batches).column(self.image)
        except Exception:
            self.group = -1  # a failed iterator gives no more rows
            raise
        self.first += len(self.values)
        self.values = values if self.leaf == self.image else pc.struct_field(values, "bytes")
