"""The files of the table that have rows of one run."""

import numpy as np
import pyarrow.parquet as pq

from captioner.jobs.storage.backends.paths import OutPath
from captioner.jobs.table.layout import RunFolder


def files_of_run(run: RunFolder, *, replaced: bool) -> list[OutPath]:
    """List the files that may have rows of a run: its own, in random order, then all others.

    Rows that `replaced` others are in files of other runs; without any, only its own files count.
    """
    own, others = list[OutPath](), list[OutPath]()
    for path in run.out.table_files():
        (own if path.name.startswith(f"{run.run_id}-") else others).append(path)
    np.random.default_rng(0).shuffle(own)
    return own + (others if replaced else [])


def may_have_rows_of(run_id: str, file: pq.FileMetaData) -> bool:
    """Return whether the statistics of a file allow rows of the latest run."""
    column = file.schema.names.index("run_id")
    groups = (file.row_group(number).column(column) for number in range(file.num_row_groups))
    return any(group.statistics is None or group.statistics.max >= run_id for group in groups)
