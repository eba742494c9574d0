"""The repairs that are safe: none invents or changes a caption, or touches what people decided."""

import secrets
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import pyarrow as pa

from captioner.jobs.errors import UsageError
from captioner.jobs.messages import how_many
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
from captioner.jobs.verify.embeddings import are_right, embedding_batches, embedding_files
from captioner.jobs.verify.files import is_damaged, is_unfinished
from captioner.jobs.verify.findings import READ_ERRORS, Kind, Scope, is_damage

Step = Callable[[Writer, Collection[OutPath]], Iterator[str]]


def repair_table(scope: Scope) -> list[str]:
    """Repair what a verification has found, under the lock of OUT; return what was done.

    Raise TemporaryError if a run is at work in OUT, UsageError if OUT cannot be written to.
    """
    done = list(_set_damaged_aside(scope))
    passed_over = [path for path in scope.unread if scope.out.storage.exists(path)]
    with exclusive_writer(scope.out.new_run(), passed_over) as writer:
        if left := scope.findings.harmless_counts[Kind.LEFT]:
            things = how_many(left, "thing")
            done.append(f"finished or removed what killed commands had left ({things})")
        done += _write_again(scope, writer)
        done += _attempted(_mark, writer, passed_over)
        done += _remove_unfinished(writer)
        done += _attempted(_remove_superseded, writer, passed_over)
        done += _attempted(_clean_embeddings, writer, scope.unread)
        done += _set_index_aside(scope)
    return done + [_left(scope, path) for path in passed_over]


def _attempted(step: Step, writer: Writer, unread: Collection[OutPath]) -> list[str]:
    """Do a step for which the table must be read but for `unread` files; tell if that fails."""
    try:
        return list(step(writer, unread))
    except UsageError as error:
        return [f"could not go on: {error}"]


def _left(scope: Scope, path: OutPath) -> str:
    return (
        f"left {scope.name_of(path)} as it is, because not all its rows can be read: its images "
        f"may have rows in other files, too, and a run may stop at it; {scope.unread[path]}"
    )


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
                    f"moved {out.name_of(path)}, which cannot be opened, to {out.name_of(to)}: "
                    "its images are captioned again by the next run that can read the table"
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


def _write_again(scope: Scope, writer: Writer) -> Iterator[str]:
    """Write files again whose footer is not true about their rows; keep the old ones."""
    out = scope.out
    for path in sorted(scope.misdescribed - scope.unread.keys()):
        writer.storage.make_folder(out.damaged)
        to = _free_name(out.damaged / path.name)
        with writer.permission():
            writer.storage.copy(path, to)
        remove_surplus({path: []}, writer)
        yield f"wrote {out.name_of(path)} again; the old file is now {out.name_of(to)}"


def _mark(writer: Writer, unread: Collection[OutPath]) -> Iterator[str]:
    _, rows = settle_threshold(None, writer, unread)
    if rows:
        yield f"marked {how_many(rows, 'row')} by the threshold of the table"


def _remove_unfinished(writer: Writer) -> Iterator[str]:
    for path in writer.storage.files(writer.out.captions, "*"):
        if is_unfinished(path):
            with writer.permission():
                writer.storage.remove(path)
            yield f"removed {writer.out.name_of(path)}, which was not finished"


def _remove_superseded(writer: Writer, unread: Collection[OutPath]) -> Iterator[str]:
    """Remove the rows of images that have a later row, as a run and a compaction do.

    A row in an unread file supersedes none: its caption may be lost. So the latest row that can be
    read stays, and a row goes only if another one that can be read is later.
    """
    files = [path for path in writer.out.table_files() if path not in unread]
    surplus = superseded(table_buckets(files, Redo(), writer.scratch / "rows.arrow"), files)
    remove_surplus(surplus, writer)
    if rows := sum(map(len, surplus.values())):
        where = " in a file that can be read" if unread else ""
        yield f"removed {how_many(rows, 'row')} superseded by a later one{where}"


def _clean_embeddings(writer: Writer, unread: Collection[OutPath]) -> Iterator[str]:
    """Remove embeddings that are wrong or of no image of the table, and files that cannot be read.

    With unread files, it is unknown which images are in the table: their embeddings stay.
    """
    images = None if unread else _images(writer)
    for path in embedding_files(writer.out):
        try:
            removed = _remove_bad(path, images, writer)
        except READ_ERRORS as error:
            if not is_damage(error):
                yield f"left {writer.out.name_of(path)} as it is: {error}"
                continue
            with writer.permission():
                writer.storage.remove(path)
            yield f"removed {writer.out.name_of(path)}, which cannot be read"
        else:
            if removed:
                yield f"removed {how_many(removed, 'embedding')} from {writer.out.name_of(path)}"


def _images(writer: Writer) -> ImageHashes:
    images, column = ImageHashes(writer.scratch), "image_sha256"
    for path, file in opened_files(writer.out.table_files()):
        for batch in column_batches(path, file, [column]):
            images.add(batch[column])
    return images


def _remove_bad(path: OutPath, images: ImageHashes | None, writer: Writer) -> int:
    """Rewrite a file of embeddings without wrong ones and those of no image; return how many.

    If the images are unknown, all may have one.
    """
    rows = kept = 0
    schema = pa.schema([])
    for batch in embedding_batches(path):
        rows, schema = rows + len(batch), batch.schema
        kept += len(_good(batch, images))
    if kept < rows:
        good = (_good(batch, images) for batch in embedding_batches(path))
        writer.write((pa.Table.from_batches([each]) for each in good if len(each)), schema, path)
    return rows - kept


def _good(batch: pa.RecordBatch, images: ImageHashes | None) -> pa.RecordBatch:
    batch = batch.filter(are_right(batch["embedding"]))
    return batch.filter(images.contain(batch["image_sha256"])) if images else batch


def _set_index_aside(scope: Scope) -> Iterator[str]:
    path: Path = index_path(scope.out)
    name = scope.name_of(path)
    faults = (each for each in scope.findings.faults if each.kind == Kind.INDEX)
    if any(each.path == name for each in faults) and path.exists():
        path.replace(path.with_suffix(".damaged"))
        yield f"renamed {name}; `captioner index` builds it again"
