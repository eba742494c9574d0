"""Replace or remove rows of the table: each of its files changes in one step.

Rows that replace others wait in the run's folder `replacements/` until the run ends. Then each file
of the table with outdated rows is rewritten with the new ones: a reader sees one row per image at
any time. The next run puts in place what a killed run has left; doing so twice does no harm.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from captioner.jobs.errors import UsageError
from captioner.jobs.storage.backends.backend import backend_of, open_ahead
from captioner.jobs.storage.backends.paths import OutPath
from captioner.jobs.table.keys import Surplus
from captioner.jobs.table.read import readable
from captioner.jobs.table.writer import Writer
from captioner.schemas.caption_table import Status, current_names, merged_schema, with_schema
from captioner.schemas.image_record import IMAGE_URI, IMAGE_VERSION, REPLACES

PRUNED_ROWS = 1_000_000  # whose URIs are in memory at once, plus those of one file
_KEYS = [IMAGE_URI, IMAGE_VERSION, "status"]
KeptRows = Callable[[pa.Table, int], pa.Array]  # a row group and its start -> mask


def put_replacements_in_place(writer: Writer, passed_over: Collection[OutPath] = ()) -> None:
    """Move the rows that runs wrote to replace others into the files with the outdated rows.

    A failure never replaces a caption of the same version of an image. Columns of a manifest that
    the source of the new row lacks keep their values. Rows for a file that someone has removed are
    dropped: their images count as new. If some are for files that are `passed_over`, they stay.
    Raise UsageError for rows that do not fit their file.
    """
    for folder in writer.storage.folders_below(writer.out.runs, "replacements"):
        by_file = _parts_by_replaced_file(writer, folder)
        paths = {writer.out.captions / name: parts for name, parts in by_file.items()}
        for path, parts in paths.items():
            if path not in passed_over and writer.storage.exists(path):
                with _fitting(folder, path):
                    _replace(path, parts, writer)
        if paths.keys().isdisjoint(passed_over):
            writer.remove_tree(folder)


def remove_surplus(surplus: Surplus, writer: Writer) -> None:
    """Remove superseded rows, given by file and position."""
    for path, positions in surplus.items():
        _rewrite(path, _all_but_positions(positions), writer)


def prune(files: Sequence[OutPath], vanished_images: Path, writer: Writer) -> int:
    """Remove the rows of images that are no longer listed; return the number of these rows.

    The Arrow file `vanished_images` has their URIs, and which of `files` has the row.
    """
    with pa.memory_map(str(vanished_images)) as file:
        vanished = pa.ipc.open_file(file).read_all()
        counts = np.bincount(vanished["file"])
        together = np.cumsum(counts) // PRUNED_ROWS
        for group in np.unique(together[counts > 0]):
            numbers = pa.array(np.flatnonzero(together == group), pa.int32())
            _prune_files(files, vanished.filter(pc.field("file").isin(numbers)), writer)
    return len(vanished)


def _prune_files(files: Sequence[OutPath], vanished: pa.Table, writer: Writer) -> None:
    vanished = vanished.sort_by("file")
    numbers, starts = np.unique(vanished["file"], return_index=True)
    for number, start, end in zip(numbers, starts, [*starts[1:], len(vanished)], strict=True):
        uris = vanished[IMAGE_URI].slice(start, end - start).combine_chunks()
        _rewrite(files[number], _all_but(uris), writer)


def _parts_by_replaced_file(writer: Writer, folder: OutPath) -> Mapping[str, list[OutPath]]:
    parts: dict[str, list[OutPath]] = defaultdict(list)
    for path, opened in open_ahead(writer.storage.files(folder, "*.parquet")):
        read = partial(pq.read_table, opened(), columns=[REPLACES])
        for name in readable(path, read)[REPLACES].unique().to_pylist():
            parts[name].append(path)
    return parts


def _replace(path: OutPath, parts: Sequence[OutPath], writer: Writer) -> None:
    of_this_file = pc.field(REPLACES) == path.name
    keys, schemas = [], []
    for _, opened in open_ahead(parts):
        part = opened()
        keys.append(pq.read_table(part, columns=_KEYS, filters=of_this_file))
        schemas.append(pq.read_schema(part))
    uris = _replaced(path, pa.concat_tables(keys))
    wanted = of_this_file & pc.field(IMAGE_URI).isin(uris)
    new = (pq.read_table(opened(), filters=wanted) for _, opened in open_ahead(parts))
    old = _old_values(path, uris, schemas)
    _rewrite(path, _all_but(uris), writer, (_filled(rows, old) for rows in new), schemas)


@contextmanager
def _fitting(folder: OutPath, path: OutPath) -> Iterator[None]:
    try:
        yield
    except pa.ArrowTypeError as error:
        raise UsageError(
            f"the rows in {folder} do not fit {path.name}: {error}; remove that folder, and the "
            "next run captions their images again"
        ) from error


def _old_values(path: OutPath, uris: pa.Array, new: Sequence[pa.Schema]) -> pa.Table:
    """Read the columns that some of the new rows lack, from the rows that they replace."""
    file = backend_of(path).open(path)
    schema = pq.read_schema(file)
    names = zip(schema.names, current_names(schema), strict=True)
    missing = [name for name, now in names if not all(now in each.names for each in new)]
    old = pq.read_table(file, columns=[IMAGE_URI, *missing], filters=pc.field(IMAGE_URI).isin(uris))
    return old.rename_columns(current_names(old.schema))


def _filled(rows: pa.Table, old: pa.Table) -> pa.Table:
    places = pc.index_in(rows[IMAGE_URI], value_set=old[IMAGE_URI].combine_chunks())
    for name in old.column_names:
        if name not in rows.column_names:
            rows = rows.append_column(old.schema.field(name), old[name].take(places))
    return rows


def _replaced(path: OutPath, new: pa.Table) -> pa.Array:
    """Return the images whose new row replaces the old one."""
    old = pq.read_table(backend_of(path).open(path), columns=_KEYS).to_pandas()
    pairs = new.to_pandas().merge(old, "left", on=IMAGE_URI, suffixes=("", "_then"))
    version, then = pairs[IMAGE_VERSION], pairs[f"{IMAGE_VERSION}_then"]
    same_version = version.isna() | (version == then)  # an unknown version has not changed
    worse = (pairs["status"] != Status.OK) & (pairs["status_then"] == Status.OK) & same_version
    return pa.array(pairs.loc[~worse, IMAGE_URI], pa.string())


def _all_but(uris: pa.Array) -> KeptRows:
    return lambda rows, _start: pc.invert(pc.is_in(rows[IMAGE_URI], uris))


def _all_but_positions(positions: Sequence[int]) -> KeptRows:
    return lambda rows, start: pa.array(
        ~np.isin(np.arange(start, start + rows.num_rows), positions)
    )


def _rewrite(
    path: OutPath,
    kept: KeptRows,
    writer: Writer,
    added: Iterable[pa.Table] = (),
    schemas: Sequence[pa.Schema] = (),
) -> None:
    """Rewrite a file of the table: the rows kept of each row group, then those added."""
    file = writer.storage.open_parquet(writer.storage.open(path))
    schema = merged_schema([file.schema_arrow, *schemas])
    tables = (with_schema(table, schema) for table in chain(_kept(path, file, kept), added))
    writer.write(tables, schema, path)


def _kept(path: OutPath, file: pq.ParquetFile, kept: KeptRows) -> Iterator[pa.Table]:
    start = 0
    for number in range(file.num_row_groups):
        rows = readable(path, partial(file.read_row_group, number))
        yield rows.filter(kept(rows, start))
        start += rows.num_rows
