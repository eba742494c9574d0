"""The text of a spreadsheet's cells, read as Excel writes it."""

import codecs
import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

from captioner.jobs.errors import UsageError
from captioner.jobs.publish.review.texts import clean_text
from captioner.jobs.publish.spreadsheets import unguarded

NEEDED = ("image_uri", "version", "caption", "decision", "text")
COLUMNS = (*("image_uri", "caption", "confidence", "alternatives"), "decision", "text", "version")
_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def filled_in(cells: Mapping[str, str]) -> str:
    """Return a digest of the cells that a person may have changed."""
    return _digest([clean_text(cells[name]) for name in ("caption", "decision", "text")])


def is_as_written(cells: Mapping[str, str]) -> bool:
    """Return whether a row has the caption, decision and text with which it was written."""
    return cells["version"].strip().startswith(f"v{filled_in(cells)}-")


def state_of(row: Mapping[str, Any]) -> str:
    """Return a digest of an image, its caption and the decision about it."""
    names = ("image_uri", "image_sha256", "caption", "decision", "text", "outdated")
    return _digest([row[name] for name in names])


def _digest(values: Sequence[object]) -> str:
    return blake2b(repr(values).encode(errors="replace"), digest_size=6).hexdigest()


def read_cells(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield each row's line number and its cells by column, empty ones for missing columns.

    Read commas, semicolons or tabs, in UTF-8, UTF-16 or Windows-1252. Raise UsageError for a file
    that is no such table.
    """
    text = _decoded(path)
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(text))
    try:
        names = [name.strip() for name in next(rows, [])]
        _check(path, names)
        for cells in rows:
            if any(cells):
                cells += [""] * (len(names) - len(cells))
                yield (
                    rows.line_num,
                    {name: unguarded(cell) for name, cell in zip(names, cells, strict=False)},
                )
    except csv.Error as error:
        raise UsageError(f"{path}, line {rows.line_num}, is not CSV: {error}") from error


def _check(path: Path, names: Sequence[str]) -> None:
    missing = [name for name in NEEDED if name not in names]
    if missing:
        raise UsageError(
            f"{path} has no column {missing[0]}: import a file that `captioner review --csv` wrote"
        )


def _decoded(path: Path) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    encoding = next((name for mark, name in _MARKS.items() if content.startswith(mark)), "utf-8")
    try:
        return content.decode(encoding)
    except UnicodeDecodeError:
        return content.decode("cp1252", errors="replace")


def _delimiter(text: str) -> str:
    """Return the sign that separates the names in the first line."""
    header = text.partition("\n")[0]
    return max(",;\t", key=header.count)
