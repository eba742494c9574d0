"""The order in which images are reviewed, as arrays: 25 bytes an image, whatever its texts."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from operator import and_
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from captioner.jobs.rows.decided import DECIDED, decided_batches, row_schema
from captioner.jobs.rows.where import Where, parse_where
from captioner.jobs.storage.backends.paths import OutPath
from captioner.jobs.table.layout import OutFolder
from captioner.jobs.table.read import BATCH_ROWS, rechunked
from captioner.jobs.table.reviews import Decisions
from captioner.schemas.caption_table import Status
from captioner.schemas.review import Review

STATUSES = ("to_review", "undecided", "decided", "all")
TOGETHER = 64  # images that reviewers at work at once see in different orders
AT_ONCE = 4096  # images that are put in such an order
COLUMNS = pa.schema(
    [
        *[(name, pa.string()) for name in ("image_uri", "image_sha256", "status", "caption")],
        ("confidence", pa.float32()),
        ("needs_review", pa.bool_()),
    ]
)
NUMBERS = pa.schema([("file", pa.int32()), ("row", pa.int32())])
Keys = npt.NDArray[np.uint64]
NO_CONTENT = np.uint64(0)


@dataclass(frozen=True)
class Filters:
    """The rows to review; those without a caption never are.

    `folder` is a part of the image's path before its name, `text` of its text, ignoring case.
    """

    status: str = "to_review"
    low: float = 0.0
    high: float = 1.0
    folder: str = ""
    text: str = ""

    def expression(self) -> pc.Expression:
        """Return the filters as one expression on decided rows."""
        decision, outdated = pc.field("decision"), pc.field("outdated")
        marked = pc.field("needs_review") | pc.field("needs_review").is_null()
        parts = [
            (pc.field("status") == Status.OK) & pc.field("caption").is_valid(),
            {
                "to_review": outdated | (decision.is_null() & marked),
                "undecided": decision.is_null(),
                "decided": decision.is_valid(),
                "all": pc.scalar(True),
            }[self.status],
        ]
        if (self.low, self.high) != (0.0, 1.0):
            confidence = pc.field("confidence")
            parts += [confidence >= np.float32(self.low), confidence <= np.float32(self.high)]
        if self.folder:
            pattern = f"(?s){re.escape(self.folder)}.*/"
            parts.append(pc.match_substring_regex(pc.field("image_uri"), pattern, ignore_case=True))
        if self.text:
            text = pc.field("text")
            parts.append(pc.match_substring(text, self.text, ignore_case=True))
        return reduce(and_, parts)


@dataclass(eq=False)
class Queue:
    """Rows in the order of their review: outdated decisions, those to review, the least certain.

    Entry n is row `row[n]` of `files[file[n]]`. `image` and `content` are hashes of URI and bytes.
    `version` is the state of the table's files. `gone` are those that somebody decided about since.
    """

    files: Sequence[OutPath]
    file: npt.NDArray[np.int32]
    row: npt.NDArray[np.int32]
    image: Keys
    content: Keys
    in_force: Decisions
    version: Mapping[str, str]
    gone: npt.NDArray[np.bool_] = field(init=False)

    def __post_init__(self) -> None:
        self.gone = np.zeros(len(self.row), bool)

    def __len__(self) -> int:
        return len(self.row)

    @property
    def remaining(self) -> int:
        return len(self) - int(np.count_nonzero(self.gone))

    def set_gone(self, images: Keys, contents: Keys, gone: bool) -> bool:
        """Take images, and those with the same bytes, out of the queue, or put them back.

        Return whether all of them are in it. `contents` has NO_CONTENT where bytes are unknown.
        """
        same_bytes = np.isin(self.content, contents[contents != NO_CONTENT])
        found = np.isin(self.image, images) | same_bytes
        self.gone[found] = gone
        has_image = np.isin(images, self.image[found])
        return bool(np.all(has_image | np.isin(contents, self.content[same_bytes])))

    def upcoming(self, spread: int = 0) -> Iterator[int]:
        """Yield the entries that are not gone, in order.

        With a `spread`, neighbours change places, for each spread in another way.
        """
        left = np.flatnonzero(~self.gone)
        for start in range(0, len(left), AT_ONCE):
            block = left[start : start + AT_ONCE]
            if spread:
                place = (block * (2 * spread + 1) + spread) % TOGETHER
                block = block[np.lexsort((place, block // TOGETHER))]
            yield from block.tolist()


@dataclass(frozen=True)
class Scope:
    """The table to review, and a condition on its rows: `schema` has the columns it names."""

    out: OutFolder
    where: Where | None = None
    schema: pa.Schema = COLUMNS

    @property
    def columns(self) -> pa.Schema:
        """Return the columns of the table that a queue is built from."""
        named = self.where.columns - {*COLUMNS.names, *DECIDED.names} if self.where else ()
        return pa.schema([*COLUMNS, *(self.schema.field(name) for name in sorted(named))])


def scope_of(out: OutFolder, where: str | None) -> Scope:
    """Return a scope; raise UsageError without a table, or for a condition that is wrong."""
    out.require_table()
    if where is None:
        return Scope(out)
    schema = row_schema(out)
    return Scope(out, parse_where(where, schema), schema)


def build_queue(scope: Scope, filters: Filters, in_force: Decisions) -> Queue:
    """Read the table once and order the rows that match; memory is that of the queue.

    Raise TemporaryError if the table is being rewritten.
    """
    out, where = scope.out, scope.where
    version = table_version(out)
    expression = filters.expression() & where.expression if where else filters.expression()
    files = list[OutPath]()
    numbered = _numbered(decided_batches(out, scope.columns, in_force), files)
    rows = (each.filter(expression) for each in rechunked(numbered, BATCH_ROWS))
    found = [_keys(_no_rows()), *map(_keys, rows)]
    file, row, image, content, confidence, group = map(np.concatenate, zip(*found, strict=True))
    order = np.lexsort((confidence, group))
    file, row, image, content = (each[order] for each in (file, row, image, content))
    return Queue(files, file, row, image, content, in_force, version)


def table_version(out: OutFolder) -> Mapping[str, str]:
    """Return what changes when files of the table are added, merged or rewritten."""
    return out.storage.versions(out.captions, "*.parquet")


def _numbered(
    batches: Iterable[tuple[OutPath, pa.Table]], files: list[OutPath]
) -> Iterator[pa.Table]:
    """Yield rows with their number in their file, and its number in `files`, which grows."""
    first = 0
    for path, rows in batches:
        if not files or path != files[-1]:
            files.append(path)
            first = 0
        numbers = np.arange(first, first + len(rows), dtype=np.int32)
        first += len(rows)
        file = np.full(len(rows), len(files) - 1, np.int32)
        rows = rows.append_column(NUMBERS.field("file"), pa.array(file))
        yield rows.append_column(NUMBERS.field("row"), pa.array(numbers))


def _no_rows() -> pa.Table:
    return pa.schema([*COLUMNS, *DECIDED, *NUMBERS]).empty_table()


def _keys(rows: pa.Table) -> tuple[npt.NDArray[Any], ...]:
    """Return file, row, hashes of URI and bytes, confidence and group of some rows."""
    confidence = rows["confidence"].to_numpy()
    is_marked = pc.fill_null(rows["needs_review"], False).to_numpy()
    group = np.where(rows["outdated"].to_numpy(), 0, np.where(is_marked, 1, 2)).astype(np.int8)
    return (
        *(rows[name].to_numpy() for name in NUMBERS.names),
        *(hashes(rows[name]) for name in ("image_uri", "image_sha256")),
        np.where(np.isnan(confidence), -1, confidence),
        group,
    )


def hashes(texts: pa.ChunkedArray) -> Keys:
    """Return a hash of each text, NO_CONTENT for null."""
    keys = pd.util.hash_array(texts.to_numpy(), categorize=False)
    return np.where(texts.is_valid().to_numpy(), keys, NO_CONTENT)


def keys_of(reviews: Sequence[Review]) -> tuple[Keys, Keys]:
    """Return the hashes of the URIs and of the bytes of reviewed images."""
    seen = pa.table(
        [[each.image_uri for each in reviews], [each.image_sha256 for each in reviews]],
        pa.schema([COLUMNS.field("image_uri"), COLUMNS.field("image_sha256")]),
    )
    return hashes(seen["image_uri"]), hashes(seen["image_sha256"])


def hash_of(text: str | None) -> int:
    """Return the hash of one text."""
    return int(hashes(pa.chunked_array([[text]], pa.string()))[0])
