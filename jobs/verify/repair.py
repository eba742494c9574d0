"""The repairs that are safe: none invents or changes a caption, or touches what people decided."""

import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from captioner.jobs.errors import UsageError
from captioner.jobs.publish.find.database import index_path
from captioner.jobs.storage.backends.backend import backend_of
from captioner.jobs.storage.backends.paths import OutPath
from captioner.jobs.table.embeddings import ImageHashes
from captioner.jobs.table.exclusive_writer import exclusive_writer
from captioner.jobs.table.keys import Redo, superseded, table_buckets
from captioner.jobs.table.read import column_batches, opened_files
from captioner.jobs.table.replace import remove_surplus
from captioner.jobs.table.threshold import settle_threshold
from captioner.jobs.table.writer import Writer
from captioner.jobs.verify.embeddings import embedding_batches, embedding_files
from captioner.jobs.verify.files import is_damaged, is_unfinished
from captioner.jobs.verify.findings import READ_ERRORS, Kind, Scope, is_damage


def repair_table(scope: Scope) -> list[str]:
    """Repair what a verification has found, under the lock of OUT; return what was done.

    Raise TemporaryError if a run is at work in OUT, UsageError if OUT cannot be written to.
    """
    done = list(_set_damaged_aside(scope))
    with exclusive_writer(scope.out.new_run()) as writer:
        if left := scope.findings.harmless_counts[Kind.LEFT]:
            done.append(f"finished or removed what killed commands had left ({left:,} things)")
        done += _attempted(_mark, writer)
        done += _remove_unfinished(writer)
        done += _attempted(_remove_superseded, writer)
        if not scope.is_partial:  # else it is unknown which images have rows
            done += _attempted(_clean_embeddings, writer)
        done += _set_index_aside(scope)
    return done


def _attempted(step: Callable[[Writer], Iterator[str]], writer: Writer) -> list[str]:
    """Do a step that every file of the table must be read for; tell if one cannot be."""
    try:
        return list(step(writer))
    except UsageError as error:
        return [f"could not go on: {error}"]


def _set_damaged_aside(scope: Scope) -> Iterator[str]:
    """Move files of the table that cannot be opened, and so have no row to save, to OUT/damaged."""
    out, storage = scope.out, scope.out.storage
    if not scope.damaged:
        return
    with storage.lock(out.lock, out.root, out.new_run().run_id) as lock:
        for path in scope.damaged:
            if storage.exists(path) and is_damaged(path):
                lock.confirm()
                to = _free_name(out.damaged / path.name)
                _move(path, to)
                yield (
                    f"moved {out.name_of(path)}, which cannot be opened, to {out.name_of(to)}: the "
                    "next run captions its images again"
                )


def _free_name(path: OutPath) -> OutPath:
    exists = backend_of(path).exists(path)
    return path.parent / f"{secrets.token_hex(4)}-{path.name}" if exists else path


def _move(path: OutPath, to: OutPath) -> None:
    storage = backend_of(path)
    storage.make_folder(to.parent)
    if local := storage.local_path(path):
        storage.put(local, to)
    else:
        storage.copy(path, to)
        storage.remove(path)


def _mark(writer: Writer) -> Iterator[str]:
    _, rows = settle_threshold(None, writer)
    if rows:
        yield f"marked {rows:,} rows by the threshold of the table"


def _remove_unfinished(writer: Writer) -> Iterator[str]:
    for path in writer.storage.files(writer.out.captions, "*"):
        if is_unfinished(path):
            with writer.permission():
                writer.storage.remove(path)
            yield f"removed {writer.out.name_of(path)}, which was not finished"


def _remove_superseded(writer: Writer) -> Iterator[str]:
    """Remove the rows of images that have a later row, as a run and a compaction do."""
    files = writer.out.table_files()
    surplus = superseded(table_buckets(files, Redo(), writer.scratch / "rows.arrow"), files)
    remove_surplus(surplus, writer)
    if rows := sum(map(len, surplus.values())):
        yield f"removed {rows:,} rows of images that have a later row"


def _clean_embeddings(writer: Writer) -> Iterator[str]:
    """Remove embeddings of images that are not in the table, and files that cannot be read."""
    images, column = ImageHashes(writer.scratch), "image_sha256"
    for path, file in opened_files(writer.out.table_files()):
        for batch in column_batches(path, file, [column]):
            images.add(batch[column])
    for path in embedding_files(writer.out):
        try:
            removed = _remove_orphans(path, images, writer)
        except READ_ERRORS as error:
            if not is_damage(error):
                yield f"left {writer.out.name_of(path)} as it is: {error}"
                continue
            with writer.permission():
                writer.storage.remove(path)
            yield f"removed {writer.out.name_of(path)}, which cannot be read"
        else:
            if removed:
                yield f"removed {removed:,} embeddings from {writer.out.name_of(path)}"


def _remove_orphans(path: OutPath, images: ImageHashes, writer: Writer) -> int:
    """Rewrite a file of embeddings without those of no image; return how many these are."""
    rows = kept = 0
    schema = pa.schema([])
    for batch in embedding_batches(path):
        rows, schema = rows + len(batch), batch.schema
        kept += pc.sum(images.contain(batch["image_sha256"])).as_py()
    if kept < rows:
        writer.write(_of_images(path, images), schema, path)
    return rows - kept


def _of_images(path: OutPath, images: ImageHashes) -> Iterator[pa.Table]:
    for batch in embedding_batches(path):
        own = batch.filter(images.contain(batch["image_sha256"]))
        if len(own):
            yield pa.Table.from_batches([own])


def _set_index_aside(scope: Scope) -> Iterator[str]:
    path: Path = index_path(scope.out)
    name = scope.name_of(path)
    faults = (each for each in scope.findings.faults if each.kind == Kind.INDEX)
    if any(each.path == name for each in faults) and path.exists():
        path.replace(path.with_suffix(".damaged"))
        yield f"renamed {name}; `captioner index` builds it again"
