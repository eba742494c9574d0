"""The bytes of images in the rows of a Parquet file."""

from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import accumulate

import pyarrow as pa
import pyarrow.compute as pc

from captioner.jobs.errors import FetchError
from captioner.jobs.fetching.fetch import too_large
from captioner.jobs.storage.failures import as_fetch_error
from captioner.jobs.storage.file_types import image_column, is_image_struct
from captioner.jobs.storage.http.access import why_refused
from captioner.jobs.storage.parquet.open_file import OpenFile, open_parquet
from captioner.jobs.storage.uris import listed_uri, name_in, parent_folder
from captioner.schemas.caption_table import Status
from captioner.schemas.image_record import Member

Found = bytes | str  # an image, or the path or URL of one
READ_ROWS = 1  # a page may say of many rows in a few bytes that they have the same large value


@contextmanager
def open_rows(
    container: str, max_bytes: int, column: str | None = None
) -> Iterator[Callable[[Member], Found]]:
    """Open a file and yield a function that returns a row's bytes; fast for rows in order.

    `column` names the one with the images where it has to be chosen. Of a row of a struct without
    bytes, the function returns the path or URL of the image that it names.
    """
    with open_parquet(container) as file:
        image = image_column(container, file.schema, column)
        yield _Rows(str(image), container, file, max_bytes).read


class _Rows:
    """The images in the rows of a file, and what the rows without bytes name."""

    def __init__(self, image: str, container: str, file: OpenFile, max_bytes: int) -> None:
        kind = file.schema.field(image).type
        is_struct = is_image_struct(kind)
        self.images = _Column(file, image, "bytes" if is_struct else None)
        has_path = is_struct and kind.get_field_index("path") >= 0
        self.paths = _Column(file, image, "path") if has_path else None
        self.container, self.max_bytes = container, max_bytes
        self.failed: dict[int, FetchError] = {}  # by row group: later rows fail, too

    def read(self, member: Member) -> Found:
        group = self.images.group_of(member.offset)
        if group in self.failed:
            raise self.failed[group]
        try:
            value, path = as_fetch_error(partial(self._row, member.offset))
        except FetchError as error:
            self.failed[group] = error
            raise
        if value is None:
            return self._named(path)
        if value.as_buffer().size > self.max_bytes:
            raise too_large(self.max_bytes)
        return bytes(value.as_py())

    def _row(self, row: int) -> tuple[pa.Scalar | None, object]:
        """Return the bytes of a row or, if it has none, its path."""
        value = self.images.value(row)
        path = self.paths.value(row) if value is None and self.paths else None
        return value, path and path.as_py()

    def _named(self, path: object) -> str:
        """Return the path or URL of the image that a row names, relative to the file's folder."""
        if (name := name_in(path)) is None:
            raise FetchError(Status.NOT_FOUND, "the row has neither bytes nor a path")
        folder = parent_folder(self.container)
        uri = listed_uri(name, folder)
        if refused := why_refused(uri, folder):
            raise FetchError(Status.REFUSED, refused)
        return uri


class _Column:
    """A column of a file, or a field of a struct, read a few rows at a time.

    Only the row groups of the rows that are asked for are read.
    """

    def __init__(self, file: OpenFile, name: str, part: str | None) -> None:
        self.file, self.name, self.part = file, name, part
        metadata = file.arrow.metadata
        sizes = [metadata.row_group(n).num_rows for n in range(metadata.num_row_groups)]
        self.starts = list(accumulate(sizes, initial=0))[:-1]
        self.batches: Iterator[pa.RecordBatch] = iter(())
        self.group, self.first, self.values = -1, 0, pa.array([], pa.binary())

    def group_of(self, row: int) -> int:
        return bisect_right(self.starts, row) - 1

    def value(self, row: int) -> pa.Scalar | None:
        """Return the value in a row, None if there is none."""
        group = self.group_of(row)
        if group != self.group or row < self.first:
            self.group, self.first, self.values = group, self.starts[group], self.values[:0]
            leaf = f"{self.name}.{self.part}" if self.part else self.name
            self.batches = self.file.arrow.iter_batches(READ_ROWS, [group], [leaf])
        while row >= self.first + len(self.values):
            self._advance()
        value = self.values[row - self.first]
        value = value.value if isinstance(value, pa.DictionaryScalar) else value
        return value if value.is_valid else None

    def _advance(self) -> None:
        try:
            values = next(self.batches).column(self.name)
        except Exception:
            self.group = -1  # a failed iterator gives no more rows
            raise
        self.first += len(self.values)
        self.values = pc.struct_field(values, self.part) if self.part else values
