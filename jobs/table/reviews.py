"""What people decided, in OUT/reviews/: added by any number of writers at once, never changed."""

import io
import secrets
import threading
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json

from captioner.jobs.errors import UsageError
from captioner.jobs.storage.backends.backend import open_ahead
from captioner.jobs.storage.backends.paths import OutPath
from captioner.jobs.table.layout import OutFolder
from captioner.schemas.review import REVIEW_SCHEMA, Decision, Review, review_lines

FILE_REVIEWS = 500  # in one file: it is written whole for each decision
KILLED_SECONDS = 24 * 3600  # after which nobody is still writing a file
Strings = npt.NDArray[np.object_]
_MICROSECOND = timedelta(microseconds=1)
_AS_WRITTEN = pa.schema(
    field.with_type(pa.string()) if pa.types.is_timestamp(field.type) else field
    for field in REVIEW_SCHEMA
)


class ReviewWriter:
    """A session of one person, with files of its own.

    Nothing else writes to these files, so any number of sessions may work at once. Methods may be
    called by several threads. They raise OSError if the reviews cannot be saved.
    """

    def __init__(self, out: OutFolder, reviewer: str, origin: str) -> None:
        self.out, self.reviewer, self.origin = out, reviewer, origin
        self.session = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(4)}"
        self._last = datetime.now(UTC)
        self._saved = 0  # in all files
        self._in_file: list[Review] = []
        self._file = 0
        self._lock = threading.Lock()

    def add(self, reviews: Iterable[Review]) -> list[Review]:
        """Save reviews durably, all or none; return them with id, reviewer, origin and time."""
        with self._lock:
            added = [self._stamped(each, number) for number, each in enumerate(reviews)]
            if not added:
                return []
            in_file = [*self._in_file, *added]
            with self.out.storage.work_folder(self.out.reviews) as scratch:
                self.out.storage.make_folder(self.out.reviews)
                if not self._saved:
                    _remove_unfinished(scratch)
                path = self.out.reviews / f"{self.session}-{self._file}.jsonl"
                self.out.storage.write(path, review_lines(in_file).encode(), scratch)
            self._saved += len(added)
            self._in_file = in_file
            if len(in_file) >= FILE_REVIEWS:
                self._in_file, self._file = [], self._file + 1
            return added

    def undo(self, reviews: Iterable[Review]) -> list[Review]:
        """Take reviews back, so that the decisions before them hold again."""
        return self.add(
            replace(each, decision=Decision.UNDONE, text=None, undoes=each.id) for each in reviews
        )

    def _stamped(self, review: Review, number: int) -> Review:
        self._last = max(datetime.now(UTC), self._last + _MICROSECOND)
        return replace(
            review,
            id=f"{self.session}-{self._saved + number:06d}",
            reviewer=self.reviewer,
            origin=self.origin,
            reviewed_at=self._last,
        )


def _remove_unfinished(folder: Path) -> None:
    """Remove the files of sessions that were killed while they saved, some time ago."""
    for path in folder.glob("*.jsonl.unfinished"):
        with suppress(OSError):  # of another user, or removed by another session
            if time.time() - path.stat().st_mtime > KILLED_SECONDS:
                path.unlink()


class Decided(NamedTuple):
    """The decisions about N rows, as columns; `decision` and `text` are null without one.

    A row needs review if the bytes have changed since the decision; without a decision, if it is
    marked.
    """

    decision: pa.ChunkedArray
    text: pa.ChunkedArray
    outdated: pa.Array
    needs_review: pa.ChunkedArray


@dataclass(frozen=True)
class Decisions:
    """The decisions in force: of each image, the latest that nobody has undone.

    `reviews` has the columns of REVIEW_SCHEMA in the order of time, one row for each image that
    somebody decided about.
    """

    reviews: pa.Table

    def __len__(self) -> int:
        return self.reviews.num_rows

    def find(self, uris: pa.ChunkedArray, hashes: pa.ChunkedArray) -> tuple[pa.Array, pa.Array]:
        """Find the decisions about images, given by URI and SHA-256.

        Return the positions [N] among `reviews`, null without a decision, and which decisions are
        outdated, as the image's bytes were others then [N]. An image without a decision of its own
        has that of an image with the same bytes, so moved and copied files keep theirs.
        """
        if not len(self):
            return pa.nulls(len(uris), pa.int64()), pa.repeat(False, len(uris))
        known, then = hashes.to_numpy(), self._hashes
        own = self._by_uri.get_indexer(pd.Index(uris.to_numpy()))
        same = np.append(self._hashed, -1)[self._by_hash.get_indexer(pd.Index(known))]
        changed = (own >= 0) & pd.notna(known) & pd.notna(then[own]) & (known != then[own])
        found = np.where((own < 0) | (changed & (same >= 0)), same, own)
        return pa.array(found, pa.int64(), mask=found < 0), pa.array(changed & (found == own))

    def about(self, rows: pa.Table) -> Decided:
        """Return the decisions about rows with image_uri, image_sha256 and needs_review."""
        positions, outdated = self.find(rows["image_uri"], rows["image_sha256"])
        decision, text = (self.reviews[name].take(positions) for name in ("decision", "text"))
        marks = pc.if_else(pc.is_valid(decision), outdated, rows["needs_review"])
        return Decided(decision, text, outdated, marks)

    @cached_property
    def _by_uri(self) -> "pd.Index[str]":
        return pd.Index(self.reviews["image_uri"].to_numpy())

    @cached_property
    def _hashes(self) -> Strings:
        return self.reviews["image_sha256"].to_numpy()

    @cached_property
    def _hashed(self) -> npt.NDArray[np.intp]:
        """The positions of the latest review for each hash; `reviews` are in the order of time."""
        hashes = pd.Series(self._hashes).dropna()
        return hashes.drop_duplicates(keep="last").index.to_numpy()

    @cached_property
    def _by_hash(self) -> "pd.Index[str]":
        return pd.Index(self._hashes[self._hashed], dtype=object)


def decisions(out: OutFolder) -> Decisions:
    """Read the decisions in force in OUT; raise UsageError for a foreign file."""
    return in_force(read_reviews(out))


def in_force(reviews: pa.Table) -> Decisions:
    """Return the decisions in force among all reviews of a table, in the order of time."""
    undone = pc.is_in(reviews["id"], value_set=reviews["undoes"].combine_chunks().drop_null())
    is_undo = pc.equal(reviews["decision"], Decision.UNDONE)
    kept = reviews.filter(pc.invert(pc.or_(undone, is_undo)))
    latest = pd.Series(kept["image_uri"].to_numpy()).drop_duplicates(keep="last").index
    return Decisions(kept.take(pa.array(latest)).combine_chunks())


def read_reviews(out: OutFolder, paths: Sequence[OutPath] | None = None) -> pa.Table:
    """Read reviews, all in OUT or those in some of its files, in the order of time.

    Raise UsageError for a foreign file.
    """
    paths = out.storage.files(out.reviews, "*.jsonl") if paths is None else paths
    tables = []
    for path, opened in open_ahead(paths):
        with opened() as file:
            tables.append(_read(str(path), file.read()))
    return in_order(pa.concat_tables(tables or [REVIEW_SCHEMA.empty_table()]))


def in_order(reviews: pa.Table) -> pa.Table:
    """Return reviews in the order of time."""
    return reviews.sort_by([("reviewed_at", "ascending"), ("id", "ascending")])


def _read(path: str, content: bytes) -> pa.Table:
    options = pyarrow.json.ParseOptions(
        explicit_schema=_AS_WRITTEN, unexpected_field_behavior="ignore"
    )
    try:
        table = pyarrow.json.read_json(io.BytesIO(content), parse_options=options)
        return table.select(REVIEW_SCHEMA.names).cast(REVIEW_SCHEMA)
    except (pa.ArrowException, ValueError) as error:
        raise UsageError(f"{path} is not a file of reviews ({error}): move it elsewhere") from error


def as_reviews(table: pa.Table) -> Sequence[Review]:
    """Return the rows of a table of reviews."""
    return [Review(**{**row, "decision": Decision(row["decision"])}) for row in table.to_pylist()]
