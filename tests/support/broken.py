"""Files of a table, to break them."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

Change = Callable[[pa.Table], pa.Table]


def parts(out: Path) -> Sequence[Path]:
    """Return the files of a table."""
    return sorted((out / "captions").iterdir())


def change(path: Path, changed: Change) -> None:
    """Rewrite a file of a table."""
    pq.write_table(changed(pq.read_table(path)), path)


def with_values(name: str, *values: Any) -> Change:
    """Return a function that sets the first values of a column."""

    def changed(table: pa.Table) -> pa.Table:
        place = table.schema.get_field_index(name)
        kept = table[name].to_pylist()[len(values) :]
        column = pa.array([*values, *kept], table.schema.field(name).type)
        return table.set_column(place, table.schema.field(name), column)

    return changed
