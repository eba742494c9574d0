"""The rows of the table with what people decided about them, in bounded memory."""

from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from captioner.jobs.errors import UsageError
from captioner.jobs.rows.where import Where
from captioner.jobs.storage.backends.paths import OutPath
from captioner.jobs.table.layout import OutFolder
from captioner.jobs.table.read import closing, column_batches, opened_files
from captioner.jobs.table.reviews import Decisions, decisions
from captioner.jobs.table.threshold import Threshold, marked, new_threshold
from captioner.schemas.caption_table import (
    caption_table_schema,
    current_names,
    free_name,
    with_schema,
)

TEXT, DECISION, OUTDATED = "text", "decision", "outdated"
DECIDED = pa.schema([(TEXT, pa.string()), (DECISION, pa.string()), (OUTDATED, pa.bool_())])
NEEDED = ("image_uri", "image_sha256", "caption", "needs_review")  # by `decided`


def row_schema(out: OutFolder, files: Sequence[OutPath] | None = None) -> pa.Schema:
    """Return all columns of the rows in OUT: the table's, a manifest's own, then DECIDED.

    With `files`, return those of some files only. A manifest's column that is named as one of
    DECIDED, in any case, is `source_<name>`, or has another `source_` before it if that is a column
    too; likewise one whose name the table has taken since, see `current_names`. Raise UsageError
    without a table, for a foreign file, or if columns of one name have different types.
    """
    out.require_table()
    distinct: dict[str, pa.Schema] = {}
    for _, file in opened_files(out.table_files() if files is None else files):
        with closing(file):
            schema = file.schema_arrow.remove_metadata()
            shown = _names_of_rows(schema)
            plain = zip(shown.values(), _plain(schema).types, strict=True)
            distinct.setdefault(str(schema), pa.schema(list(plain)))
    try:
        merged = pa.unify_schemas([_plain(caption_table_schema()), *distinct.values()])
    except pa.ArrowException as error:
        raise UsageError(f"the files in {out.captions} do not fit together: {error}") from error
    return pa.schema([*merged, *DECIDED])


def read_rows(
    out: OutFolder,
    schema: pa.Schema,
    columns: Sequence[str] | None = None,
    where: Where | None = None,
) -> Iterator[pa.Table]:
    """Yield the rows of OUT that match, file by file, with some or all columns of `row_schema`.

    `text` is what a person wrote, "" for a decorative image, otherwise the caption; null if a
    person rejected it. `decision` is null where nobody decided. `outdated` says that the image's
    bytes have changed since. `needs_review` is false for decided images, true for outdated ones.
    """
    wanted = list(columns) if columns is not None else schema.names
    needed = {*wanted, *(where.columns if where else ()), *NEEDED}
    of_table = pa.schema([f for f in schema if f.name in needed and f.name not in DECIDED.names])
    for _, rows in decided_batches(out, of_table, decisions(out)):
        yield (rows.filter(where.expression) if where else rows).select(wanted)


def decided_batches(
    out: OutFolder, of_table: pa.Schema, in_force: Decisions
) -> Iterator[tuple[OutPath, pa.Table]]:
    """Yield all rows, file by file in their order: columns of the table, then DECIDED.

    `of_table` must have NEEDED.
    """
    threshold = new_threshold(out)
    for path, file in opened_files(out.table_files()):
        for plain in plain_rows(path, file, of_table, threshold):
            yield path, decided(plain, in_force)


def plain_rows(
    path: OutPath, file: pq.ParquetFile, schema: pa.Schema, threshold: Threshold | None = None
) -> Iterator[pa.Table]:
    """Yield the rows of a file with the columns of a schema, without DECIDED; close the file.

    With a `threshold`, they are marked by it.
    """
    shown = _names_of_rows(file.schema_arrow)
    needed = {*schema.names, *(("caption", "confidence") if threshold else ())}
    names = [name for name in shown if shown[name] in needed]
    for batch in column_batches(path, file, names):
        rows = pa.Table.from_batches([batch]).rename_columns([shown[name] for name in names])
        yield plain_table(marked(rows, threshold) if threshold else rows, schema)


def plain_table(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return rows of a file with the columns of a schema, and dictionaries as strings."""
    return with_schema(rows.cast(_plain(rows.schema)), schema)


def decided(rows: pa.Table, in_force: Decisions) -> pa.Table:
    """Return rows with the columns DECIDED, and `needs_review` as those decisions leave it."""
    about = in_force.about(rows)
    text = pc.if_else(pc.is_valid(about.decision), about.text, rows["caption"])
    place = rows.schema.get_field_index("needs_review")
    rows = rows.set_column(place, rows.schema.field(place), about.needs_review)
    for field, column in zip(DECIDED, (text, about.decision, about.outdated), strict=True):
        rows = rows.append_column(field, column)
    return rows


def _plain(schema: pa.Schema) -> pa.Schema:
    """Return a schema without dictionaries."""
    return pa.schema(list(zip(schema.names, map(_value_type, schema.types), strict=True)))


def _value_type(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _names_of_rows(schema: pa.Schema) -> dict[str, str]:
    """Return what the rows call the columns of a file, by their names in it; see row_schema."""
    shown = dict(zip(schema.names, current_names(schema), strict=True))
    taken = {*DECIDED.names, *(name.casefold() for name in shown.values())}
    for name, now in shown.items():
        if now.casefold() in DECIDED.names:
            shown[name] = free_name(now, taken)
            taken.add(shown[name].casefold())
    return shown
