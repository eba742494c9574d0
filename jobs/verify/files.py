"""The files of the table: each opens, has the schema of a table, and reads whole."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from captioner.calibration import Calibration
from captioner.errors import CaptionerError
from captioner.jobs.storage.backends.backend import backend_of, is_store, open_ahead
from captioner.jobs.storage.backends.paths import OutPath
from captioner.jobs.storage.failures import StoreError, StoreNotFound
from captioner.jobs.table.read import closing
from captioner.jobs.table.threshold import Threshold, threshold_of
from captioner.jobs.verify.findings import (
    READ_ERRORS,
    Kind,
    Scope,
    how_to_set_aside,
    is_damage,
)
from captioner.jobs.verify.footer import GroupStatistics, is_own_footer, is_own_schema
from captioner.schemas.caption_table import (
    CAPTIONERS,
    SCHEMA_VERSION,
    caption_table_schema,
    current_names,
)
from captioner.schemas.image_record import PLAN_COLUMNS

BATCH_ROWS = 20_000
# Columns that older files lack, or have at the end.
LATER = {"needs_review", "former", "declined", "word_confidence"}
_READABLE = "let this user read it, or look at its disk"
_AGAIN = "--repair writes the file again from its rows"
_REWRITE = "another program wrote it: restore the file, or move it elsewhere"
_FOREIGN = "move it elsewhere: readers of the table take every file in this folder for a part of it"


@dataclass(frozen=True)
class TableFile:
    """A file of the table that opens: its number among them, and what its metadata says."""

    path: OutPath
    number: int
    schema: pa.Schema
    captioners: frozenset[str]
    threshold: Threshold | None


@dataclass(frozen=True)
class Rows:
    """Some rows of a file, from the position `start` on, under the current names of columns."""

    file: TableFile
    start: int
    table: pa.Table


def read_table(scope: Scope, files: list[OutPath]) -> Iterator[TableFile | Rows]:
    """Yield each file that opens, then all its rows if it has the columns of a table."""
    paths = tqdm(files, "verifying", unit=" files", delay=1, disable=None)
    for number, (path, opened) in enumerate(open_ahead(paths)):
        try:
            source = opened()
            with closing(_opened(path, source)) as file:
                yield from _read(scope, path, number, file)
                if not is_own_footer(file, source):
                    _misdescribed(scope, path, "its footer is damaged")
        except StoreNotFound:
            scope.moved = True
        except StoreError:
            raise
        except READ_ERRORS as error:
            if not scope.has_changed(path):
                _cannot_open(scope, path, error)


def _opened(path: OutPath, source: pa.NativeFile) -> pq.ParquetFile:
    return pq.ParquetFile(source, pre_buffer=is_store(path), page_checksum_verification=True)


def _cannot_open(scope: Scope, path: OutPath, error: Exception) -> None:
    remedy = _READABLE
    if is_damage(error):
        scope.damaged.append(path)
        remedy = "--repair moves it to OUT/damaged, and its images are captioned again"
    scope.unread[path] = remedy
    scope.fault(Kind.FILE, path, f"cannot be opened ({error})", remedy)


def _read(
    scope: Scope, path: OutPath, number: int, opened: pq.ParquetFile
) -> Iterator[TableFile | Rows]:
    schema = opened.schema_arrow
    names = current_names(schema)
    fields = dict(zip(names, schema, strict=True))
    problems = list(_column_problems(names, fields))
    if not is_own_schema(opened):
        problems.append("has two schemas, which differ")
    if problems:
        scope.unread[path] = how_to_set_aside(scope, path)
    for problem in problems:
        scope.fault(Kind.SCHEMA, path, problem, scope.unread[path])
    for problem in _form_problems(names, fields):
        scope.fault(Kind.SCHEMA, path, problem, _REWRITE)
    captioners, threshold = _metadata(scope, path, schema)
    file = TableFile(path, number, schema, captioners, threshold)
    yield file
    start = 0
    for batch in _batches(scope, path, opened):
        if not problems:
            yield Rows(file, start, pa.Table.from_batches([batch]).rename_columns(names))
        start += batch.num_rows


def _batches(scope: Scope, path: OutPath, file: pq.ParquetFile) -> Iterator[pa.RecordBatch]:
    """Yield all rows until one cannot be read."""
    batches, row = _checked(scope, path, file), 0
    while True:
        try:
            if (batch := next(batches, None)) is None:
                _check_count(file, row)
                return
        except StoreError:
            raise
        except READ_ERRORS as error:
            scope.unread[path] = how_to_set_aside(scope, path)
            if not scope.has_changed(path):
                what = f"cannot be read from row {row:,} on ({error})"
                scope.fault(Kind.FILE, path, what, scope.unread[path])
            return
        yield batch
        row += batch.num_rows


def _checked(scope: Scope, path: OutPath, file: pq.ParquetFile) -> Iterator[pa.RecordBatch]:
    """Yield all rows, and compare each row group with its statistics."""
    for number in range(file.num_row_groups):
        statistics = GroupStatistics(file, number)
        for batch in file.iter_batches(BATCH_ROWS, row_groups=[number]):
            batch.validate(full=True)
            statistics.add(batch)
            yield batch
        statistics.check_rows()
        for column in statistics.wrong():
            _misdescribed(scope, path, f"its footer is wrong about {column}")


def _misdescribed(scope: Scope, path: OutPath, problem: str) -> None:
    """Note that a footer is not true about rows that can be read."""
    if path not in scope.unread and not scope.has_changed(path):
        scope.misdescribed.add(path)
        scope.fault(Kind.FILE, path, f"{problem}: other programs may miss rows", _AGAIN)


def _check_count(file: pq.ParquetFile, rows: int) -> None:
    if rows != file.metadata.num_rows:
        raise ValueError(f"its footer counts {file.metadata.num_rows:,} rows")


def _column_problems(names: list[str], fields: Mapping[str, pa.Field]) -> Iterator[str]:
    """Yield why rows cannot be verified by their columns."""
    yield from (f"has two columns {name}" for name in sorted({*names}) if names.count(name) > 1)
    for column in caption_table_schema():
        if (found := fields.get(column.name)) is None:
            if column.name not in LATER:
                yield f"has no column {column.name}"
        elif found.type != column.type:
            yield f"column {column.name} is {found.type}, not {column.type}"


def _form_problems(names: list[str], fields: Mapping[str, pa.Field]) -> Iterator[str]:
    """Yield what else is unlike a file that this package writes."""
    yield from (f"has the column {name} of a plan" for name in PLAN_COLUMNS if name in fields)
    wanted = caption_table_schema()
    for column in wanted:
        if column.name in fields and fields[column.name].nullable > column.nullable:
            yield f"column {column.name} may be null"
    order = [name for name in names if name in wanted.names and name not in LATER]
    if order != [name for name in wanted.names if name in order]:
        yield "its columns are in another order"


def _metadata(
    scope: Scope, path: OutPath, schema: pa.Schema
) -> tuple[frozenset[str], Threshold | None]:
    """Return the captioners and the threshold that a file names."""
    metadata, wrong = schema.metadata or {}, list[str]()
    version = metadata.get(b"schema_version", b"").decode(errors="replace")
    if not (version.isdecimal() and 1 <= int(version) <= int(SCHEMA_VERSION)):
        wrong.append(f"its schema has the unknown version {version!r}")
    captioners: dict[str, Any] = {}
    threshold = None
    with _noting(wrong, "captioners"):
        captioners = json.loads(metadata[CAPTIONERS])
        _check_calibrations(captioners)
    with _noting(wrong, "the review threshold"):
        threshold = threshold_of(schema)
    for problem in wrong:
        scope.fault(Kind.SCHEMA, path, problem, _REWRITE)
    return frozenset(captioners), threshold


@contextmanager
def _noting(wrong: list[str], subject: str) -> Iterator[None]:
    """Note an error of reading some metadata, and go on."""
    try:
        yield
    except (ValueError, TypeError, KeyError, AttributeError, CaptionerError) as error:
        wrong.append(f"its metadata about {subject} cannot be read ({error!r})")


def _check_calibrations(captioners: dict[str, Any]) -> None:
    for settings in captioners.values():
        if calibration := settings.get("calibration"):
            Calibration.from_json(calibration)


def check_other_entries(scope: Scope) -> None:
    """Find everything in the folder of the table that is not a Parquet file."""
    for path in scope.out.storage.files(scope.out.captions, "*"):
        if path.name and not path.name.endswith(".parquet"):
            scope.fault(Kind.FILE, path, "is no file of a table", _remedy(path))


def _remedy(path: OutPath) -> str:
    return f"{_FOREIGN}; --repair removes it" if is_unfinished(path) else _FOREIGN


def is_unfinished(path: OutPath) -> bool:
    """Return whether a file is one that a killed command has not finished."""
    return path.name.endswith(".unfinished")


def is_damaged(path: OutPath) -> bool:
    """Return whether a file of the table cannot be opened because it is damaged."""
    try:
        _opened(path, backend_of(path).open(path)).close(force=True)
    except StoreError:
        raise
    except READ_ERRORS as error:
        return is_damage(error)
    return False
