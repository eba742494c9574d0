"""The plan of a run: the images of the source that need a new row in the table."""

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pyarrow as pa

from captioner.errors import CaptionerError
from captioner.jobs.config.job import JobConfig
from captioner.jobs.errors import UsageError
from captioner.jobs.messages import how_many, warn
from captioner.jobs.planning.compare import Compared, Counts, ListedBuckets, compare
from captioner.jobs.planning.doubted import Choice, DoubtfulImages
from captioner.jobs.planning.partitions import (
    ALONE,
    NEW,
    NO_WORK,
    Actions,
    Size,
    plan_file,
    write_partitions,
)
from captioner.jobs.rows.doubt import Asked, check_where, doubts_of
from captioner.jobs.sources.kept import COMPRESSED
from captioner.jobs.sources.listing.filters import UNREADABLE_FOLDERS
from captioner.jobs.sources.source import Source
from captioner.jobs.storage.backends.paths import OutPath, out_path
from captioner.jobs.storage.parquet.types import plain_type
from captioner.jobs.table.embeddings import EmbeddedHashes
from captioner.jobs.table.keys import Redo, Surplus, add_surplus, table_buckets
from captioner.jobs.table.layout import OutFolder
from captioner.loading import identify
from captioner.schemas.image_record import IMAGE_URI, IMAGE_VERSION, PLAN_COLUMNS

Types: TypeAlias = Mapping[str, pa.DataType]  # by column
_VANISHED = pa.schema([(IMAGE_URI, pa.string()), ("file", pa.int32())])


@dataclass
class Plan:
    """The work of a run: the record batches of an Arrow file are its partitions.

    Those from number `first_redo` on hold images whose rows in the table will be replaced. `files`
    are the table's. `surplus` has the positions of superseded rows, by file. `postponed` images
    need a row, too, but are beyond the limit of the run. The rows that stay as they are count by
    status: `kept` ones and, unless they are removed, those of vanished images.
    """

    files: Sequence[OutPath] = ()
    counts: Counts = field(default_factory=Counts)
    partition_sizes: list[int] = field(default_factory=list)
    first_redo: int = 0
    surplus: Surplus = field(default_factory=dict)
    postponed: int = 0
    kept: Counter[str] = field(default_factory=Counter)
    kept_vanished: Counter[str] = field(default_factory=Counter)

    @property
    def images(self) -> int:
        return sum(self.partition_sizes)


def make_plan(
    source: Source,
    out: OutFolder,
    folder: Path,
    size: Size,
    redo: Redo,
    second_opinion: Choice | None = None,
) -> Plan:
    """Write a plan into `folder`: the images without a row, the changed ones, and what `redo` adds.

    Partitions have at most `size.partition` images, fewer in a small job and at the end of a large
    one, so that many workers are busy to the end. The plan ends after `size.limit` images. The same
    listing, table and size give the same partitions. For a `second_opinion`, the plan has nothing
    but the images that it chooses among the doubtful ones of `redo`.

    Memory does not grow with the number of images; the folder needs room for two copies of the
    listing, and for the table's keys. Raise UsageError for a foreign file in the table, and for a
    column whose type differs from the table's.
    """
    files = out.table_files()
    rows = table_buckets(files, redo, folder / "rows.arrow")
    listing = folder / "listing.arrow"
    images = _keep_listing(source, rows.types, listing, folder)
    plan = Plan(files)
    actions = np.memmap(folder / "actions", np.int32, "w+", shape=max(images.rows, 1))
    actions[:] = NO_WORK
    doubtful = DoubtfulImages(folder / "doubtful", images.rows) if second_opinion else None
    with pa.ipc.new_file(str(vanished_file(folder)), _VANISHED) as vanished:
        for compared in compare(images, rows, redo, source.scope):
            _record(compared, plan, actions, doubtful)
            vanished.write_table(_vanished(compared))
    if doubtful and second_opinion:
        _plan_opinions(doubtful.choose(second_opinion, actions), plan.counts)
    sizes = write_partitions(plan_file(folder), listing, actions, files, size)
    plan.partition_sizes, plan.first_redo = sizes
    plan.postponed = plan.counts.work - plan.images
    for temporary in (listing, images.path, rows.path, folder / "actions"):
        temporary.unlink()
    return plan


def _vanished(compared: Compared) -> pa.Table:
    return pa.Table.from_pandas(compared.vanished, _VANISHED, preserve_index=False)


def _plan_opinions(doubted: int, counts: Counts) -> None:
    """Count the images that want a second opinion, whose rows do not count as stale."""
    counts.doubted = doubted
    counts.already_there -= doubted
    counts.kept_stale = 0


def vanished_file(folder: Path) -> Path:
    """Return the path of an Arrow file of vanished rows: URIs, and numbers of files."""
    return folder / "vanished.arrow"


def _keep_listing(source: Source, types: Types, path: Path, folder: Path) -> ListedBuckets:
    """Write a listing, which can be read only once, to a file, and its keys into buckets."""
    schema = pa.schema([column.with_type(_type(column, types)) for column in source.schema])
    images = ListedBuckets(folder / "images.arrow")
    with pa.ipc.new_file(str(path), schema, options=COMPRESSED) as file:
        for batch in source.batches:
            file.write_batch(_in_types_of_table(batch, schema))
            images.add_listed(batch)
    return images


def _type(column: pa.Field, types: Types) -> pa.DataType:
    """Return the type of a listed column; a column has one type in all files of the table."""
    is_own = column.name not in (IMAGE_URI, IMAGE_VERSION, *PLAN_COLUMNS)
    return plain_type(types.get(column.name, column.type)) if is_own else column.type


def _in_types_of_table(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    columns = map(_in_type, batch.columns, schema.types, schema.names)
    return pa.record_batch(list(columns), schema=schema)


def _in_type(column: pa.Array, kind: pa.DataType, name: str) -> pa.Array:
    """Cast a column to the table's type: nulls, integers to floats, and text of any type."""
    if column.type == kind:
        return column
    if column.null_count == len(column):
        return pa.nulls(len(column), kind)
    widens = pa.types.is_integer(column.type) and pa.types.is_floating(kind)
    if widens or plain_type(column.type) == kind:
        with suppress(pa.ArrowInvalid):  # an integer that no float equals
            return column.cast(kind)
    raise UsageError(
        f"the column {name} is {column.type} in the source and {kind} in the table: "
        "change or rename it"
    )


def _record(
    compared: Compared, plan: Plan, actions: Actions, doubtful: DoubtfulImages | None
) -> None:
    plan.counts.add(compared.counts)
    plan.kept += compared.kept
    plan.kept_vanished += compared.kept_vanished
    if doubtful:
        doubtful.add(compared.doubtful)
    else:
        actions[compared.new] = NEW
        alone = compared.redo["alone"] * ALONE
        actions[compared.redo["position"]] = compared.redo["file"] + alone
    add_surplus(plan.surplus, plan.files, compared.surplus)


def may_prune(source: Source, counts: Counts) -> bool:
    """Return whether a listing says which rows to remove, as an empty one does not.

    Raise UsageError if it is incomplete.
    """
    if not counts.listed:  # as the job allows
        if counts.vanished:
            rows = f"{counts.vanished:,} rows have" if counts.vanished > 1 else "1 row has"
            warn(f"{rows} no image in SOURCE; not pruned, because SOURCE is empty")
        return False
    if unread := source.skipped[UNREADABLE_FOLDERS]:
        raise UsageError(
            f"cannot prune: {how_many(unread, 'folder')} could not be read, so images there only "
            "seem to be gone; make all folders readable, or run without --prune"
        )
    return True


def redo_of(config: JobConfig, out: OutFolder, folder: Path) -> Redo:
    """Return which rows of unchanged images a job redoes; UsageError if it has no checkpoint.

    `folder` needs room for 8 bytes for each embedding in OUT, if the job wants embeddings, and 5
    for each row, if it gives second opinions.
    """
    captioner = _identity(config)
    doubts = None
    if config.is_second_opinion:
        if not out.table_files():
            raise UsageError(f"{out.root} has no captions yet: run without a second opinion first")
        asked = Asked(captioner, config.where, again=config.stale == "redo")
        doubts = doubts_of(out, asked, folder)
    embedded = EmbeddedHashes(out, captioner, folder) if config.embeddings else None
    return Redo(
        captioner,
        config.stale == "redo" and doubts is None,
        config.retried,
        config.force,
        embedded,
        doubts,
    )


def second_opinion_of(config: JobConfig) -> Choice | None:
    """Return which doubtful images a job asks about; None unless it gives second opinions."""
    if not config.is_second_opinion:
        return None
    limits = [limit for limit in (config.limit, config.max_requests) if limit is not None]
    return Choice(config.redo_below, config.share, min(limits, default=None))


def absence_of(second: JobConfig) -> str | None:
    """Return why the captioner of a second pass is absent, None if it is there.

    Raise UsageError for a condition that is wrong, so that the first pass is not run in vain.
    """
    if second.where:
        check_where(OutFolder(out_path(second.out)), second.where)
    try:
        _identity(second)
    except UsageError as error:
        return str(error)
    return None


def _identity(config: JobConfig) -> str:
    try:
        return identify(config.captioner)
    except CaptionerError as error:
        raise UsageError(str(error)) from error
