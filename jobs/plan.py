"""Records minus table -> partitions on disk."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from jobs.errors import UsageError
from jobs.folders import OutFolder, RunFolder
from jobs.source import Source
from schemas.image_record import IMAGE_URI

MIN_PARTITIONS = 16  # if that leaves them
MIN_ROWS = 64  # each
T = TypeVar("T")


@dataclass
class Plan:
    """What a run has to do: the row groups of one Parquet file are the partitions.

    Of `listed` images, once each, `already_there` are in the table and `images` are the work.
    The same listing, table and partition size give the same partitions.
    """

    partition_sizes: list[int] = field(default_factory=list)
    listed: int = 0
    already_there: int = 0
    duplicates: int = 0

    @property
    def images(self) -> int:
        return sum(self.partition_sizes)


def make_plan(source: Source, run: RunFolder, partition_size: int) -> Plan:
    """Write the plan of a run: the images of the source that have no row in the table yet.

    Partitions have at most `partition_size` images. Those of a small job, and the last ones of a
    large job, have fewer, so that many workers are busy to the end.
    """
    plan = Plan()
    _check_types(source.schema, run.out)
    new = _new_images(source.batches, committed_uris(run.out), plan)
    with pq.ParquetWriter(run.plan, source.schema, compression="zstd") as writer:
        for partition in _partitions(new, source.schema, partition_size):
            writer.write_table(partition, row_group_size=partition_size)
            plan.partition_sizes.append(partition.num_rows)
    return plan


def _check_types(schema: pa.Schema, out: OutFolder) -> None:
    """A manifest's own columns keep their types from run to run, or no tool reads the table whole.

    The newest file tells them: the one before it agreed.
    """
    if not (files := out.table_files()):
        return
    table = readable(out, lambda: ds.dataset(files[-1:], format="parquet").schema)
    for column in schema:
        if column.name in table.names and table.field(column.name).type != column.type:
            raise UsageError(
                f"the column {column.name} is {column.type} in the source and "
                f"{table.field(column.name).type} in {out.captions}: change or rename it"
            )


def read_partition(plan: Path, partition: int) -> pa.Table:
    """The records of one partition, with the columns that a manifest passes through."""
    with pq.ParquetFile(plan) as file:
        return file.read_row_group(partition)


def committed_uris(out: OutFolder) -> set[str]:
    """The images that have a row in the table."""
    files = out.table_files()
    uris: set[str] = set()
    if files:
        table = readable(out, lambda: ds.dataset(files, format="parquet"))
        for batch in readable(out, lambda: table.to_table([IMAGE_URI])).to_batches():
            uris.update(batch.column(IMAGE_URI).to_pylist())
    return uris


def readable(out: OutFolder, read: Callable[[], T]) -> T:
    """What reading the table gives; UsageError if a file in it is none of its own."""
    try:
        return read()
    except (pa.ArrowException, OSError) as error:
        message = f"{out.captions} holds a file that is not of the caption table: {error}"
        raise UsageError(message) from error


def _new_images(
    batches: Iterable[pa.RecordBatch], committed: set[str], plan: Plan
) -> Iterator[pa.RecordBatch]:
    """The rows that are work, each image once; counts the others."""
    seen: set[str] = set()
    for batch in batches:
        is_new = []
        for uri in batch.column(IMAGE_URI).to_pylist():
            is_new.append(uri not in seen and uri not in committed)
            plan.duplicates += uri in seen
            plan.already_there += uri in committed and uri not in seen
            seen.add(uri)
        plan.listed = len(seen)
        yield batch.filter(pa.array(is_new, pa.bool_()))


def _partitions(
    batches: Iterable[pa.RecordBatch], schema: pa.Schema, size: int
) -> Iterator[pa.Table]:
    """The same rows in partitions of even size."""
    for table in _regroup(batches, schema, MIN_PARTITIONS * size):
        even = -(-table.num_rows // MIN_PARTITIONS)
        step = min(size, max(even, MIN_ROWS))
        for start in range(0, table.num_rows, step):
            yield table.slice(start, step)


def _regroup(batches: Iterable[pa.RecordBatch], schema: pa.Schema, size: int) -> Iterator[pa.Table]:
    """The same rows in tables of `size` rows; the last one may have fewer."""
    waiting = schema.empty_table()
    for batch in batches:
        waiting = pa.concat_tables([waiting, pa.Table.from_batches([batch])])
        while waiting.num_rows >= size:
            yield waiting.slice(0, size)
            waiting = waiting.slice(size)
    if waiting.num_rows:
        yield waiting
