"""The threshold of a table: which captions need review.

It is a view of the stored confidences, not a property of a run: a new threshold marks every row
again. Each file records the threshold by which its rows are marked. While files are rewritten,
OUT/runs/.threshold.json has the new one: readers apply it to all rows, and if the command was
killed, the next one that writes marks the other files.
"""

import json
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from captioner.jobs.storage.backends.paths import OutPath
from captioner.jobs.table.layout import OutFolder
from captioner.jobs.table.read import closing, open_file, opened_files, readable
from captioner.jobs.table.writer import Writer
from captioner.schemas.caption_table import REVIEW, CaptionRow, merged_schema, with_schema

_MARK = pa.field("needs_review", pa.bool_())


@dataclass(frozen=True)
class Threshold:
    """A threshold: captions with a confidence below `min_confidence` need review.

    Without a `min_confidence`, no caption is marked. If it was found for a `target_precision`,
    `expected_coverage` is the share of captions that need none, on the calibration's images.
    `since`, an ISO time, says when the table got it; None if it has not got it yet.
    """

    min_confidence: float | None
    target_precision: float | None = None
    expected_coverage: float | None = None
    since: str | None = None

    def __str__(self) -> str:
        text = f"confidence of at least {self.min_confidence}"
        if self.expected_coverage is None:
            return text
        return (
            f"{text} for a precision of {self.target_precision} "
            f"(on the calibration's images: {self.expected_coverage:.0%} of the captions)"
        )


def needs_review(row: CaptionRow, threshold: Threshold | None) -> bool | None:
    """Return whether a row's caption needs review; None without a caption or a threshold.

    One of unknown confidence does.
    """
    if row.caption is None or threshold is None or threshold.min_confidence is None:
        return None
    return row.confidence is None or row.confidence < float(
        np.float32(threshold.min_confidence)
    )  # as precise as the table


def threshold_of(schema: pa.Schema) -> Threshold | None:
    """Return the threshold by which a file's rows are marked; None if they never were."""
    values = json.loads((schema.metadata or {}).get(REVIEW, b"null"))
    return Threshold(**values) if values else None


def latest(thresholds: Sequence[Threshold | None]) -> Threshold | None:
    """Return the threshold of a table, given those of its files."""
    known = [each for each in thresholds if each]
    return max(known, key=lambda each: each.since or "", default=None)


def table_threshold(out: OutFolder) -> Threshold | None:
    """Return the threshold of the table in OUT; raise UsageError for a foreign file."""
    return new_threshold(out) or latest(list(_thresholds(out).values()))


def settle_threshold(
    wanted: Threshold | None, writer: Writer, but: Collection[OutPath] = ()
) -> tuple[Threshold | None, int]:
    """Mark the rows of the whole table by `wanted`, or else by the threshold that it has.

    Files in `but`, which cannot be read, are passed over. Return that threshold, and the number of
    rows in the files that had to be marked.
    """
    thresholds = _thresholds(writer.out, but)
    threshold = new_threshold(writer.out) or latest(list(thresholds.values()))
    if wanted is not None and (
        threshold is None or replace(wanted, since=threshold.since) != threshold
    ):
        threshold = replace(wanted, since=datetime.now(UTC).isoformat())
    if threshold is None:
        return None, 0
    files = [path for path, of_file in thresholds.items() if of_file != threshold]
    if not files:
        writer.storage.remove(writer.out.new_threshold)  # of a command that was killed at its end
        return threshold, 0
    with _announced(threshold, writer), ThreadPoolExecutor(os.cpu_count()) as pool:
        return threshold, sum(pool.map(lambda path: _mark(path, threshold, writer), files))


@contextmanager
def _announced(threshold: Threshold, writer: Writer) -> Iterator[None]:
    """Let readers apply a threshold until all files are marked by it."""
    writer.write_text(json.dumps(asdict(threshold)), writer.out.new_threshold)
    yield
    writer.storage.remove(writer.out.new_threshold)


def new_threshold(out: OutFolder) -> Threshold | None:
    """Return the threshold by which some files are not marked yet; None if all are."""
    try:
        return Threshold(**json.loads(out.storage.read_bytes(out.new_threshold)))
    except FileNotFoundError:
        return None


def marked(rows: pa.Table, threshold: Threshold) -> pa.Table:
    """Return rows with `needs_review` by a threshold, given their caption and confidence."""
    marks = pa.nulls(len(rows), pa.bool_())
    if threshold.min_confidence is not None:
        below = pc.less(rows["confidence"], pa.scalar(threshold.min_confidence, pa.float32()))
        unsure = pc.fill_null(below, True)
        marks = pc.if_else(pc.is_valid(rows["caption"]), unsure, pa.scalar(None, pa.bool_()))
    place = rows.schema.get_field_index(_MARK.name)
    return rows.append_column(_MARK, marks) if place < 0 else rows.set_column(place, _MARK, marks)


def _thresholds(
    out: OutFolder, but: Collection[OutPath] = ()
) -> Mapping[OutPath, Threshold | None]:
    thresholds = {}
    for path, file in opened_files(path for path in out.table_files() if path not in but):
        with closing(file):
            thresholds[path] = threshold_of(file.schema_arrow)
    return thresholds


def _mark(path: OutPath, threshold: Threshold, writer: Writer) -> int:
    """Rewrite a file of the table with the marks of a threshold; return its rows."""
    with closing(open_file(path)) as file:
        schema = merged_schema([file.schema_arrow])
        if _MARK.name not in schema.names:  # in a file of the first version
            schema = schema.append(_MARK)
        metadata = {**schema.metadata, REVIEW: json.dumps(asdict(threshold)).encode()}
        schema = schema.with_metadata(metadata)
        groups = (
            readable(path, partial(file.read_row_group, number))
            for number in range(file.num_row_groups)
        )
        rows = (marked(with_schema(group, schema), threshold) for group in groups)
        return writer.write(rows, schema, path)
