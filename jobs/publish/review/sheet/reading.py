"""A CSV file as Excel or LibreOffice writes it -> its rows."""

import codecs
import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from captioner.jobs.errors import UsageError
from captioner.jobs.publish.spreadsheets import unguarded

NEEDED = ("image_uri", "version", "caption", "decision", "text")
_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_SEPARATOR = re.compile(r'"?sep=([^\w\s"]|\t)[^\r\n]*(?:\r\n?|\n)', re.IGNORECASE)


class Encoding(StrEnum):
    """What a file is encoded in; of ASCII and Windows-1252, an editor may have made it."""

    UNICODE = "Unicode"
    ASCII = "ASCII"
    WINDOWS = "Windows-1252"


class SheetRow(NamedTuple):
    """The cells of a row by column, the line where it ends, and the encoding of its file."""

    line: int
    cells: Mapping[str, str]
    encoding: Encoding


def read_rows(path: Path) -> Iterator[SheetRow]:
    """Yield the rows of a file, with empty cells for missing columns.

    Read commas, semicolons or tabs, or what a first line "sep=" names, in UTF-8, UTF-16 with a byte
    order mark or Windows-1252. Raise UsageError for a file that is no such table.
    """
    text, encoding = _decoded(path)
    named = _SEPARATOR.match(text)
    file = io.StringIO(text[named.end() :] if named else text, newline="")
    header = file.readline()
    _check_encoding(path, header)
    file.seek(0)
    rows = csv.reader(file, delimiter=named[1] if named else max(",;\t", key=header.count))
    with _cells_of_any_length(len(text)):
        names = [name.strip() for name in next(rows, [])]
        _check_columns(path, names)
        for cells in filter(any, rows):
            cells += [""] * (len(names) - len(cells))
            by_name = zip(names, map(unguarded, cells), strict=False)
            yield SheetRow(rows.line_num + bool(named), dict(by_name), encoding)


@contextmanager
def _cells_of_any_length(most: int) -> Iterator[None]:
    """Lift the limit of the module csv, at which it gives up the whole file."""
    former = csv.field_size_limit()
    csv.field_size_limit(max(most, former))
    try:
        yield
    finally:
        csv.field_size_limit(former)


def _check_encoding(path: Path, header: str) -> None:
    if "\0" in header:  # UTF-16 without a mark, UTF-32, or no text
        raise UsageError(f"the encoding of {path} is not recognised: save it as CSV UTF-8")


def _check_columns(path: Path, names: Sequence[str]) -> None:
    for name in NEEDED:
        if name not in names:
            raise UsageError(
                f"{path} has no column {name}: import a file that `captioner review --csv` wrote"
            )
        if names.count(name) > 1:
            raise UsageError(f"{path} has more than one column {name}: remove or rename the others")


def _decoded(path: Path) -> tuple[str, Encoding]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    mark = next((mark for mark in _MARKS if content.startswith(mark)), None)
    try:
        text = content.decode(_MARKS[mark] if mark else "utf-8")
    except UnicodeDecodeError:
        return content.decode("cp1252", errors="replace"), Encoding.WINDOWS
    return text, Encoding.UNICODE if mark or not text.isascii() else Encoding.ASCII
