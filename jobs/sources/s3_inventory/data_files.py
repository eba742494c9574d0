"""The data files of an S3 Inventory, CSV or Parquet, on disk or in S3: MD5-checked, then read."""

import gzip
import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from io import BufferedReader, BytesIO
from pathlib import Path
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from captioner.jobs.errors import UsageError
from captioner.jobs.sources.manifests.streams import read_or_refuse
from captioner.jobs.sources.source import BATCH_ROWS, Batches
from captioner.jobs.storage.failures import listing_errors
from captioner.jobs.storage.filesystems import filesystem
from captioner.jobs.storage.parquet.batches import plain_batches
from captioner.jobs.storage.parquet.open_file import open_parquet
from captioner.jobs.storage.temporary import TemporaryFolder
from captioner.jobs.storage.uris import is_local

_CSV_BLOCK = 4 * 1024 * 1024  # bytes parsed at once
_FLAGS = ("is_latest", "is_delete_marker")
_COLUMNS = ("bucket", "key", *_FLAGS, "size", "last_modified_date", "e_tag")  # the ones to read


def data_rows(url: str, md5: str, is_csv: bool, names: Sequence[str]) -> Batches:
    """Yield the rows of a data file with columns `names`, without the columns that are not needed.

    Keys are as in the bucket. UsageError before the first row if the MD5 differs.
    """
    columns = [name for name in names if name in _COLUMNS]
    with _on_disk(url) as path:
        with path.open("rb") as file:
            check_md5(url, file, md5)
        batches = _csv_rows(path, names, columns) if is_csv else _parquet_rows(path, columns)
        while (batch := read_or_refuse(url, lambda: next(batches, None))) is not None:
            yield batch


@contextmanager
def _on_disk(url: str) -> Iterator[Path]:
    """Yield the path of a local file, or of a temporary copy of a remote one."""
    if is_local(url):
        yield Path(url)
        return
    with TemporaryFolder() as folder:
        copy = Path(folder, "data")
        with listing_errors(url, "read"):
            files, path = filesystem(url)
            files.get_file(path, str(copy))
        yield copy


def _csv_rows(path: Path, names: Sequence[str], columns: list[str]) -> Batches:
    with gzip.open(path) as file:
        if not file.read(1):  # an error to pyarrow
            return
    with csv.open_csv(
        pa.input_stream(path, compression="gzip"),
        read_options=csv.ReadOptions(column_names=names, block_size=_CSV_BLOCK),
        convert_options=csv.ConvertOptions(
            include_columns=columns,
            column_types={name: pa.bool_() if name in _FLAGS else pa.string() for name in columns},
            null_values=[""],
            strings_can_be_null=True,
        ),
    ) as reader:
        yield from map(_decoded, reader)


def _decoded(rows: pa.RecordBatch) -> pa.RecordBatch:
    """Return rows of a CSV file with decoded keys: they are URL-encoded, with `+` for a space."""
    keys = pc.replace_substring(rows.column("key"), "+", " ")
    is_encoded = pc.match_substring(keys, "%")
    decoded = pa.array(map(unquote, keys.filter(is_encoded).to_pylist()), pa.string())
    keys = pc.replace_with_mask(keys, is_encoded, decoded)
    return rows.set_column(rows.schema.get_field_index("key"), "key", keys)


def _parquet_rows(path: Path, columns: list[str]) -> Batches:
    with open_parquet(str(path)) as file:
        for batch in plain_batches(file, BATCH_ROWS, columns):
            yield batch.select(columns)


def check_md5(url: str, file: BufferedReader | BytesIO, expected: str) -> None:
    """Raise UsageError if a file does not have the MD5 that the inventory gives for it."""
    found = hashlib.file_digest(file, partial(hashlib.md5, usedforsecurity=False)).hexdigest()
    if found != expected.strip().lower():
        raise UsageError(
            f"{url} is damaged or incomplete: its MD5 is {found}, the inventory says {expected}; "
            "copy it again, or use the inventory of another day"
        )
