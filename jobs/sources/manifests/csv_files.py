"""CSV and TSV manifests."""

import csv
import io
from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow.csv import ConvertOptions, CSVStreamingReader, ParseOptions, ReadOptions, open_csv

from captioner.jobs.errors import UsageError
from captioner.jobs.sources.manifests.streams import MAX_LINE, open_file
from captioner.jobs.sources.source import Batches
from captioner.jobs.storage.uris import file_name


class CsvFormat:
    """CSV and TSV files as manifests, whose columns are all text."""

    def schema(self, path: str) -> pa.Schema:
        # Without threads, which would read far ahead.
        with _closed_quotes(path), _open_csv(path, ConvertOptions(), use_threads=False) as reader:
            return pa.schema([(name, pa.string()) for name in reader.schema.names])

    def common_type(self, _one: pa.DataType, _other: pa.DataType) -> pa.DataType:
        return pa.string()

    def batches(self, path: str, schema: pa.Schema) -> Batches:
        options = ConvertOptions(
            column_types=schema,
            include_columns=schema.names,
            include_missing_columns=True,
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        )
        with _closed_quotes(path), _open_csv(path, options) as reader:
            is_checked = False
            for batch in reader:
                if not is_checked and _has_line_breaks(batch):
                    _check_quotes(path)
                    is_checked = True
                yield batch


@contextmanager
def _closed_quotes(path: str) -> Iterator[None]:
    """Check the quotation marks of a file that pyarrow cannot read: one may never be closed."""
    try:
        yield
    except pa.ArrowInvalid:
        _check_quotes(path)
        raise


def _has_line_breaks(batch: pa.RecordBatch) -> bool:
    found = (pc.match_substring_regex(column, "[\r\n]") for column in batch.columns)
    return any(pc.any(lines).as_py() for lines in found)


def _check_quotes(path: str) -> None:
    """Raise UsageError if a value begins with a quotation mark that is not closed.

    To pyarrow such a value swallows all rows up to the next quotation mark, without an error. So
    a file with values of several lines is read once more, by stricter rules.
    """
    csv.field_size_limit(MAX_LINE)
    start = 1
    with io.TextIOWrapper(io.BufferedReader(open_file(path)), errors="replace", newline="") as text:
        rows = csv.reader(text, delimiter=_delimiter(path), strict=True)
        try:
            for _ in rows:
                start = rows.line_num + 1
        except csv.Error as error:
            raise UsageError(
                f"cannot read {path}: the row in line {start} has a quotation mark "
                f"that is not closed, or one too many ({error}): double each quotation mark "
                "within a quoted value"
            ) from error


def _open_csv(path: str, convert: ConvertOptions, use_threads: bool = True) -> CSVStreamingReader:
    return open_csv(
        open_file(path),
        read_options=ReadOptions(use_threads=use_threads, block_size=MAX_LINE),
        parse_options=ParseOptions(delimiter=_delimiter(path), newlines_in_values=True),
        convert_options=convert,
    )


def _delimiter(path: str) -> str:
    return "\t" if file_name(path).lower().endswith((".tsv", ".tsv.gz")) else ","
