"""Records minus table -> partitions on disk."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from captioner.errors import CaptionerError
from captioner.jobs.config import JobConfig
from captioner.jobs.errors import UsageError
from captioner.jobs.planning.compare import Compared, Counts, ListedBuckets, compare
from captioner.jobs.sources.listing.filters import UNREADABLE_FOLDERS
from captioner.jobs.sources.source import Source
from captioner.jobs.storage.failures import os_errors
from captioner.jobs.storage.paths import OutPath, is_store, put
from captioner.jobs.storage.paths import source as source_of
from captioner.jobs.table.keys import Redo, add_surplus, table_buckets
from captioner.jobs.table.layout import OutFolder, RunFolder
from captioner.model_directory import find_checkpoint, fingerprint, identity
from captioner.schemas.image_record import IMAGE_URI, IMAGE_VERSION, PLAN_COLUMNS, REPLACES

MIN_PARTITIONS = 16  # if that leaves them
MIN_ROWS = 64  # each
NEW, NO_WORK = -1, -2  # fates; that of an image to be redone is the number of its row's file
Fates = npt.NDArray[np.int32]  # by position in the listing
Types: TypeAlias = Mapping[str, pa.DataType]  # by column
Listed: TypeAlias = pa.ipc.RecordBatchFileReader
PLAN = "plan.arrow"
_COMPRESSED = pa.ipc.IpcWriteOptions(compression="zstd")
_VANISHED = pa.schema([(IMAGE_URI, pa.string()), ("file", pa.int32())])


@dataclass
class Plan:
    """What a run has to do: the record batches of an Arrow file are its partitions.

    Those from number `first_redo` on are of images whose rows in the table are to be replaced.
    `files` are the table's. `surplus` are rows of images that have a later one: by file, their
    positions in it.
    """

    files: Sequence[OutPath] = ()
    counts: Counts = field(default_factory=Counts)
    partition_sizes: list[int] = field(default_factory=list)
    first_redo: int = 0
    surplus: dict[OutPath, list[int]] = field(default_factory=dict)

    @property
    def images(self) -> int:
        return sum(self.partition_sizes)


def make_plan(
    source: Source, out: OutFolder, folder: Path, partition_size: int, redo: Redo
) -> Plan:
    """Write into `folder` what a run has to do: the images of the source that need a new row.

    Those are the images without a row, those that have changed since, and what `redo` adds.
    Partitions have at most `partition_size` images. Those of a small job, and the last ones of a
    large job, have fewer, so that many workers are busy to the end. The same listing, table and
    partition size give the same partitions.

    Memory does not grow with the number of images; the folder needs room for the listing twice
    and for the table's keys. UsageError for a file that is none of the table's, and for a column
    whose type is not the table's.
    """
    files = out.table_files()
    rows = table_buckets(files, redo, folder / "rows.arrow")
    listing = folder / "listing.arrow"
    images = _keep_listing(source, rows.types, listing, folder)
    plan = Plan(files)
    fates = np.memmap(folder / "fates", np.int32, "w+", shape=max(images.rows, 1))
    fates[:] = NO_WORK
    with pa.ipc.new_file(str(vanished_file(folder)), _VANISHED) as vanished:
        for compared in compare(images, rows, redo, source.scope):
            _record(compared, plan, fates)
            vanished.write_table(
                pa.Table.from_pandas(compared.vanished, _VANISHED, preserve_index=False)
            )
    _write_partitions(plan, plan_file(folder), listing, fates, partition_size)
    for spent in (listing, images.path, rows.path, folder / "fates"):
        spent.unlink()
    return plan


def plan_file(folder: Path) -> Path:
    """The plan in a folder."""
    return folder / PLAN


def vanished_file(folder: Path) -> Path:
    """The table's rows whose images are not listed: their URIs, and the numbers of their files."""
    return folder / "vanished.arrow"


def share_plan(run: RunFolder, folder: Path) -> None:
    """Put the plan where workers of other machines read it, unless `folder` is that place."""
    if is_store(run.scratch):
        put(plan_file(folder), run.scratch / PLAN)


def read_partition(folder: OutPath, partition: int) -> pa.Table:
    """The records of one partition of a plan, with the columns that a manifest passes through."""
    if is_store(folder):
        with os_errors():
            return pa.Table.from_batches([_remote_plan(folder / PLAN).get_batch(partition)])
    with pa.OSFile(str(plan_file(folder))) as file:
        return pa.Table.from_batches([pa.ipc.open_file(file).get_batch(partition)])


@lru_cache(maxsize=1)
def _remote_plan(path: OutPath) -> Listed:
    """The plan of a run, on a store; its index is read once a process."""
    return pa.ipc.open_file(source_of(path))


def _keep_listing(source: Source, types: Types, path: Path, folder: Path) -> ListedBuckets:
    """A listing can be read once only: write it to a file, and its keys into buckets."""
    schema = pa.schema([column.with_type(_type(column, types)) for column in source.schema])
    images = ListedBuckets(folder / "images.arrow")
    with pa.ipc.new_file(str(path), schema, options=_COMPRESSED) as file:
        for batch in source.batches:
            file.write_batch(_in_types_of_table(batch, schema))
            images.add_listed(batch)
    return images


def _type(column: pa.Field, types: Types) -> pa.DataType:
    """That of the table: its columns keep their types, or no tool reads it whole."""
    is_own = column.name not in (IMAGE_URI, IMAGE_VERSION, *PLAN_COLUMNS)
    return _plain(types.get(column.name, column.type)) if is_own else column.type


def _plain(kind: pa.DataType) -> pa.DataType:
    """Of the values of a dictionary, which differs from file to file; and text of one kind."""
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return pa.string() if kind == pa.large_string() else kind


def _in_types_of_table(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    columns = map(_in_type, batch.columns, schema.types, schema.names)
    return pa.record_batch(list(columns), schema=schema)


def _in_type(column: pa.Array, kind: pa.DataType, name: str) -> pa.Array:
    """The same values; whole numbers become the table's fractions, and nulls are of any type."""
    if column.type == kind:
        return column
    if column.null_count == len(column):
        return pa.nulls(len(column), kind)
    widens = pa.types.is_integer(column.type) and pa.types.is_floating(kind)
    if widens or _plain(column.type) == kind:
        with suppress(pa.ArrowInvalid):  # a number that no fraction is exactly
            return column.cast(kind)
    raise UsageError(
        f"the column {name} is {column.type} in the source and {kind} in the table: "
        "change or rename it"
    )


def _record(compared: Compared, plan: Plan, fates: Fates) -> None:
    plan.counts.add(compared.counts)
    fates[compared.new] = NEW
    fates[compared.redo["position"]] = compared.redo["file"]
    add_surplus(plan.surplus, plan.files, compared.surplus)


def _write_partitions(plan: Plan, path: Path, listing: Path, fates: Fates, size: int) -> None:
    """First the new images, then those to be redone, both in the order of the listing."""
    with pa.OSFile(str(listing)) as spool:
        listed = pa.ipc.open_file(spool)
        schema = listed.schema.append(pa.field(REPLACES, pa.string()))
        with pa.ipc.new_file(str(path), schema, options=_COMPRESSED) as file:

            def write(rows: Iterator[pa.RecordBatch]) -> None:
                for partition in _partitions(rows, schema, size):
                    file.write_batch(partition.combine_chunks().to_batches()[0])
                    plan.partition_sizes.append(partition.num_rows)

            write(_new_images(listed, fates, schema))
            plan.first_redo = len(plan.partition_sizes)
            write(_images_to_redo(listed, fates, schema, plan.files))


def _with_fates(listed: Listed, fates: Fates) -> Iterator[tuple[pa.RecordBatch, Fates]]:
    start = 0
    for number in range(listed.num_record_batches):
        batch = listed.get_batch(number)
        yield batch, fates[start : start + batch.num_rows]
        start += batch.num_rows


def _new_images(listed: Listed, fates: Fates, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    for batch, fate in _with_fates(listed, fates):
        rows = batch.filter(pa.array(fate == NEW))
        yield pa.record_batch([*rows.columns, pa.nulls(rows.num_rows, pa.string())], schema=schema)


def _images_to_redo(
    listed: Listed, fates: Fates, schema: pa.Schema, files: Sequence[OutPath]
) -> Iterator[pa.RecordBatch]:
    names = pa.array([path.name for path in files], pa.string())
    for batch, fate in _with_fates(listed, fates):
        rows = batch.filter(pa.array(fate >= 0))
        replaces = names.take(pa.array(fate[fate >= 0]))
        yield pa.record_batch([*rows.columns, replaces], schema=schema)


def _partitions(
    batches: Iterator[pa.RecordBatch], schema: pa.Schema, size: int
) -> Iterator[pa.Table]:
    """The same rows in partitions of even size."""
    for table in _regroup(batches, schema, MIN_PARTITIONS * size):
        even = -(-table.num_rows // MIN_PARTITIONS)
        step = min(size, max(even, MIN_ROWS))
        for start in range(0, table.num_rows, step):
            yield table.slice(start, step)


def _regroup(batches: Iterator[pa.RecordBatch], schema: pa.Schema, size: int) -> Iterator[pa.Table]:
    """The same rows in tables of `size` rows; the last one may have fewer."""
    waiting = schema.empty_table()
    for batch in batches:
        waiting = pa.concat_tables([waiting, pa.Table.from_batches([batch])])
        while waiting.num_rows >= size:
            yield waiting.slice(0, size)
            waiting = waiting.slice(size)
    if waiting.num_rows:
        yield waiting


def check_listing_is_whole(source: Source, listed: int) -> None:
    """UsageError if nothing is to be pruned by a listing: of no image, or not of all folders."""
    if not listed:
        raise UsageError("cannot prune: the source lists no image at all; run without prune")
    if unread := source.skipped[UNREADABLE_FOLDERS]:
        raise UsageError(
            f"cannot prune: {unread} folders could not be read, so their images only seem to be "
            "gone; make them readable, or run without prune"
        )


def redo_of(config: JobConfig) -> Redo:
    """Which rows of unchanged images a job writes again. UsageError without its checkpoint."""
    try:
        directory = find_checkpoint(config.checkpoint)
    except CaptionerError as error:
        raise UsageError(str(error)) from error
    captioner = identity(directory.resolve().name, fingerprint(directory), config.search)
    return Redo(captioner, config.stale == "redo", config.retried)
