"""The images of a table that have no caption."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow.compute as pc

from captioner.jobs.errors import UsageError
from captioner.jobs.storage.backends.paths import out_path
from captioner.jobs.storage.failures import job_errors
from captioner.jobs.table.layout import OutFolder
from captioner.jobs.table.read import column_batches, opened_files
from captioner.schemas.caption_table import Status

_COLUMNS = ("image_uri", "status", "error")


@dataclass(frozen=True)
class Failure:
    """An image without a caption; `status` and `error` say why."""

    image_uri: str
    status: str
    error: str | None


def read_failures(out: str | Path) -> Iterator[Failure]:
    """Yield the failed images of the table in OUT, in bounded memory; UsageError without one."""
    folder = OutFolder(out_path(out))
    try:
        with job_errors(folder.root):
            folder.require_table()
            for path, file in opened_files(folder.table_files()):
                for batch in column_batches(path, file, _COLUMNS):
                    failed = batch.filter(pc.not_equal(batch.column("status"), Status.OK))
                    yield from (Failure(**row) for row in failed.to_pylist())
    except OSError as error:
        raise UsageError(f"cannot read {folder.captions}: {error}") from error
