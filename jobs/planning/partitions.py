"""The partitions of a run on disk: an Arrow file with a record batch for each."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from captioner.jobs.sources.kept import COMPRESSED
from captioner.jobs.storage.backends.backend import backend_of
from captioner.jobs.storage.backends.paths import OutPath
from captioner.jobs.table.layout import RunFolder
from captioner.jobs.table.read import rechunked
from captioner.schemas.image_record import REPLACES

MIN_PARTITIONS = 16  # for a small job, as long as each has MIN_ROWS
MIN_ROWS = 64
MAX_BYTES = 128 * 1024 * 1024  # of rows in memory; those of a manifest may be long
NEW, NO_WORK = -1, -2  # actions; to redo an image, the action is the number of its row's file
ALONE = 2**30  # added to it for an image that is in a partition of its own
Actions = npt.NDArray[np.int32]  # by position in the listing
Listed: TypeAlias = pa.ipc.RecordBatchFileReader
PLAN = "plan.arrow"


def plan_file(folder: Path) -> Path:
    """Return the path of the plan in a folder."""
    return folder / PLAN


def share_plan(run: RunFolder, folder: Path) -> None:
    """Put the plan where all workers can read it, on other machines, too."""
    run.storage.put(plan_file(folder), run.scratch / PLAN)


def read_partition(folder: OutPath, partition: int) -> pa.Table:
    """Read the records of a partition, with the columns that a manifest passes through."""
    return pa.Table.from_batches([backend_of(folder).read_batch(folder / PLAN, partition)])


@dataclass(frozen=True)
class Size:
    """The size of a plan: images in a partition at most, and in the whole plan (None: all)."""

    partition: int
    limit: int | None = None


def write_partitions(
    path: Path, listing: Path, actions: Actions, files: Sequence[OutPath], size: Size
) -> tuple[list[int], int]:
    """Write the new images, those to redo, and those to redo alone.

    Return the sizes of the partitions, and the number of the first one to redo.
    """
    sizes: list[int] = []
    with pa.OSFile(str(listing)) as spool:
        listed = pa.ipc.open_file(spool)
        schema = listed.schema.append(pa.field(REPLACES, pa.string()))
        with pa.ipc.new_file(str(path), schema, options=COMPRESSED) as file:

            def write(batches: Iterator[pa.RecordBatch], most: int = size.partition) -> None:
                room = None if size.limit is None else size.limit - sum(sizes)
                for partition in _partitions(_first_rows(batches, room), most):
                    file.write_batch(partition.combine_chunks().to_batches()[0])
                    sizes.append(partition.num_rows)

            write(_new_images(listed, actions, schema))
            first_redo = len(sizes)
            write(_images_to_redo(listed, actions, schema, files))
            if actions.max() >= ALONE:
                write(_images_to_redo(listed, actions, schema, files, ALONE), 1)
    return sizes, first_redo


def _with_actions(listed: Listed, actions: Actions) -> Iterator[tuple[pa.RecordBatch, Actions]]:
    start = 0
    for number in range(listed.num_record_batches):
        batch = listed.get_batch(number)
        yield batch, actions[start : start + batch.num_rows]
        start += batch.num_rows


def _new_images(listed: Listed, actions: Actions, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    for batch, action in _with_actions(listed, actions):
        rows = batch.filter(pa.array(action == NEW))
        yield pa.record_batch([*rows.columns, pa.nulls(rows.num_rows, pa.string())], schema=schema)


def _images_to_redo(
    listed: Listed, actions: Actions, schema: pa.Schema, files: Sequence[OutPath], first: int = 0
) -> Iterator[pa.RecordBatch]:
    """Yield the images with actions from `first` on, which stands for the first file."""
    names = pa.array([path.name for path in files], pa.string())
    for batch, action in _with_actions(listed, actions):
        wanted = (action >= first) & (action < first + ALONE)
        rows = batch.filter(pa.array(wanted))
        replaces = names.take(pa.array(action[wanted] - first))
        yield pa.record_batch([*rows.columns, replaces], schema=schema)


def _first_rows(batches: Iterator[pa.RecordBatch], rows: int | None) -> Iterator[pa.RecordBatch]:
    """Yield the first rows of all batches; all of them if `rows` is None."""
    for batch in batches:
        yield batch if rows is None else batch.slice(0, rows)
        rows = None if rows is None else rows - min(rows, batch.num_rows)
        if rows == 0:
            return


def _partitions(batches: Iterator[pa.RecordBatch], size: int) -> Iterator[pa.Table]:
    """Cut rows into partitions of even size."""
    tables = (pa.Table.from_batches([batch]) for batch in batches)
    total = 0

    def part(table: pa.Table) -> int:
        nonlocal total
        total += table.nbytes
        return total // MAX_BYTES

    for _, together in groupby(tables, part):
        for table in rechunked(together, MIN_PARTITIONS * size):
            even = -(-table.num_rows // MIN_PARTITIONS)
            step = min(size, max(even, MIN_ROWS))
            for start in range(0, table.num_rows, step):
                yield table.slice(start, step)
