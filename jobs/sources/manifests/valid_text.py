"""Text from files that do not check it: what is not UTF-8."""

import pyarrow as pa

from captioner.jobs.errors import UsageError
from captioner.schemas.image_record import IMAGE_URI


def with_valid_text(file: str, first_row: int, batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return a batch whose text is UTF-8, with U+FFFD for what is not.

    UsageError for the URI of an image, and for text within lists and structs.
    """
    if _is_valid(batch):
        return batch
    columns = []
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        if not _is_valid(column):
            if name == IMAGE_URI or not pa.types.is_string(column.type):
                raise _not_utf8(file, first_row, name, column)
            column = _mended(column)
        columns.append(column)
    return pa.record_batch(columns, schema=batch.schema)


def _is_valid(values: pa.Array | pa.RecordBatch) -> bool:
    try:
        values.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def _mended(column: pa.Array) -> pa.Array:
    values = column.cast(pa.binary()).to_pylist()
    return pa.array([value and value.decode(errors="replace") for value in values], pa.string())


def _not_utf8(file: str, first_row: int, name: str, column: pa.Array) -> UsageError:
    row = next(n for n in range(len(column)) if not _is_valid(column.take([n])))
    return UsageError(
        f"{file}: the column {name} in row {first_row + row} is not UTF-8: save it as UTF-8"
    )
