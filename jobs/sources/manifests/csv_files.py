"""CSV and TSV manifests."""

import csv
import io
from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow.csv import ConvertOptions, CSVStreamingReader, ParseOptions, ReadOptions, open_csv

from captioner.jobs.errors import UsageError
from captioner.jobs.sources.manifests.streams import (
    MAX_COLUMNS,
    MAX_LINE,
    conform,
    open_file,
    text_lines,
)
from captioner.jobs.sources.source import BATCH_ROWS, Batches
from captioner.jobs.storage.uris import file_name


class CsvFormat:
    """CSV and TSV files as manifests, whose columns are all text."""

    def schema(self, path: str) -> pa.Schema:
        _check_width(path)
        with _explained(path), _open_csv(path, ConvertOptions()) as reader:
            return pa.schema([(name, pa.string()) for name in reader.schema.names])

    def common_type(self, _one: pa.DataType, _other: pa.DataType) -> pa.DataType:
        return pa.string()

    def batches(self, path: str, schema: pa.Schema) -> Batches:
        options = ConvertOptions(
            column_types=schema,
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        )
        with _explained(path), _open_csv(path, options) as reader:
            is_checked = False
            for block in reader:
                if not is_checked and _has_line_breaks(block):
                    _check_quotes(path)
                    is_checked = True
                for start in range(0, block.num_rows, BATCH_ROWS):
                    yield conform(block.slice(start, BATCH_ROWS), schema)


@contextmanager
def _explained(path: str) -> Iterator[None]:
    """Say what is wrong with a file that pyarrow cannot read, and in which line, if that is known.

    A quotation mark may never be closed, or the encoding may be another one.
    """
    try:
        yield
    except pa.ArrowInvalid:
        _check_quotes(path)
        for _ in text_lines(path):
            pass
        raise


def _has_line_breaks(batch: pa.RecordBatch) -> bool:
    found = (pc.match_substring_regex(column, "[\r\n]") for column in batch.columns)
    return any(pc.any(lines).as_py() for lines in found)


def _check_width(path: str) -> None:
    """Raise UsageError if the header has too many columns."""
    header = next((row for row in _rows(path, is_strict=False) if row), [])
    if len(header) > MAX_COLUMNS:
        raise UsageError(
            f"cannot read {path}: it has {len(header)} columns, and the limit is {MAX_COLUMNS}"
        )


def _check_quotes(path: str) -> None:
    """Raise UsageError if a value begins with a quotation mark that is not closed.

    To pyarrow such a value swallows all rows up to the next quotation mark, without an error. So
    a file with values of several lines is read once more, by stricter rules.
    """
    for _ in _rows(path, is_strict=True):
        pass


def _rows(path: str, is_strict: bool) -> Iterator[list[str]]:
    """Yield the rows as Python reads them; UsageError if one is wrong, or too long."""
    csv.field_size_limit(MAX_LINE)
    start, size = 1, 0

    def lines() -> Iterator[str]:
        nonlocal size
        while line := text.readline(MAX_LINE):
            size += len(line)
            if size >= MAX_LINE:
                raise csv.Error(f"it has {MAX_LINE} characters or more")
            yield line

    with io.TextIOWrapper(open_file(path), "utf-8-sig", errors="replace", newline="") as text:
        rows = csv.reader(lines(), delimiter=_delimiter(path), strict=is_strict)
        try:
            for row in rows:
                yield row
                start, size = rows.line_num + 1, 0
        except csv.Error as error:
            raise UsageError(
                f"cannot read {path}: the row in line {start} has a quotation mark "
                f"that is not closed, or one too many ({error}): double each quotation mark "
                "within a quoted value"
            ) from error


def _open_csv(path: str, convert: ConvertOptions) -> CSVStreamingReader:
    return open_csv(
        open_file(path),
        # Without threads, which would read far ahead, and could not number the rows.
        read_options=ReadOptions(use_threads=False, block_size=MAX_LINE),
        parse_options=ParseOptions(delimiter=_delimiter(path), newlines_in_values=True),
        convert_options=convert,
    )


def _delimiter(path: str) -> str:
    return "\t" if file_name(path).lower().endswith((".tsv", ".tsv.gz")) else ","
