"""Compare the listing with the table, in bounded memory: find the images that need a new row.

Both are cut into buckets on disk, by a hash of the URI, and compared bucket by bucket: a Grace hash
join (Kitsuregawa et al. 1983).
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from captioner.jobs.table.buckets import Buckets, buckets_together
from captioner.jobs.table.keys import (
    DONE,
    FILE,
    FIRST,
    KEY,
    LACKING,
    POSITION,
    RETRY,
    STALE,
    STATUS,
    STATUSES,
    Redo,
    by_time,
)
from captioner.schemas.caption_table import Status
from captioner.schemas.image_record import IMAGE_URI, IMAGE_VERSION

_LISTED = pa.schema(KEY)
ALONE = "alone"  # whether an image needs the memory of a worker for itself


@dataclass
class Counts:
    """The numbers of images by what a run does with them.

    Each `listed` image counts once. `new` ones have no row. Of those with a row, some have
    `changed` since, some are redone because their row is `stale`, a failure to be `retried`, or
    `lacking` an embedding, or `doubted`, or because all are `forced`; the others are
    `already_there`, `kept_stale` of them with a row by another captioner. `vanished` images have a
    row but are not listed.
    """

    listed: int = 0
    duplicates: int = 0
    new: int = 0
    changed: int = 0
    stale: int = 0
    retried: int = 0
    lacking: int = 0
    forced: int = 0
    doubted: int = 0
    already_there: int = 0
    kept_stale: int = 0
    vanished: int = 0

    @property
    def work(self) -> int:
        """The number of images that need a new row."""
        return self.listed - self.already_there

    def add(self, other: "Counts") -> None:
        """Add the counts for other images."""
        for field in fields(self):
            total = getattr(self, field.name) + getattr(other, field.name)
            setattr(self, field.name, total)


@dataclass(frozen=True)
class Compared:
    """The result for the images of one bucket.

    `new` and `redo` are positions in the listing; `redo`, `vanished` (rows by URI) and `surplus`
    (rows by position) have the number of the file with the row, as have the `doubtful` images,
    which need no new row otherwise. The rows that stay as they are count by status: those of the
    images that are `kept`, and those of the vanished ones, unless they are removed.
    """

    counts: Counts
    new: npt.NDArray[np.int64]
    redo: pd.DataFrame
    vanished: pd.DataFrame
    surplus: pd.DataFrame
    doubtful: pd.DataFrame
    kept: Counter[str]
    kept_vanished: Counter[str]


class ListedBuckets(Buckets):
    """The listed images, in buckets."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, _LISTED)

    def add_listed(self, batch: pa.RecordBatch) -> None:
        """Add the next images of the listing."""
        positions = np.arange(self.rows, self.rows + batch.num_rows)
        self.add([batch.column(IMAGE_URI), batch.column(IMAGE_VERSION), pa.array(positions)])


def compare(
    listing: Buckets, table: Buckets, redo: Redo, scope: Callable[[str], bool]
) -> Iterator[Compared]:
    """Compare listing and table bucket by bucket; only rows with a URI in `scope` can vanish."""
    together = buckets_together(max(listing.rows, table.rows))
    for listed, rows in zip(listing.read(together), table.read(together), strict=True):
        yield _compare(listed.to_pandas(), rows.to_pandas(), redo, scope)


def _compare(
    listed: pd.DataFrame, rows: pd.DataFrame, redo: Redo, scope: Callable[[str], bool]
) -> Compared:
    duplicate = _repeated(listed[IMAGE_URI])
    rows, surplus = by_time(rows)
    latest = rows[~surplus].rename_axis("row").reset_index()
    pairs = listed[~duplicate].merge(latest, "left", on=IMAGE_URI, suffixes=("", "_then"))

    pairs[ALONE] = pairs[STATUS].eq(STATUSES.index(Status.OUT_OF_MEMORY))
    has_row = pairs[FILE].notna()
    why = _why_redone(pairs, redo)
    work_again = why.any(axis=1)

    is_listed = np.zeros(len(rows), bool)
    is_listed[pairs["row"].dropna().astype(int)] = True
    unlisted = rows[~is_listed & ~surplus]
    in_scope = np.array([scope(uri) for uri in unlisted[IMAGE_URI]], bool)
    vanished = unlisted[in_scope]
    counts = Counts(
        listed=len(pairs),
        duplicates=int(duplicate.sum()),
        new=int((~has_row).sum()),
        **{str(reason): int(images.sum()) for reason, images in why.items()},
        already_there=int((has_row & ~work_again).sum()),
        kept_stale=int((pairs[STALE].eq(True) & ~work_again).sum()),
        vanished=len(vanished),
    )
    return Compared(
        counts,
        pairs.loc[~has_row, POSITION].to_numpy(),
        pairs.loc[work_again, [POSITION, FILE, ALONE]].astype(int),
        vanished[[IMAGE_URI, FILE]],
        rows.loc[surplus, [POSITION, FILE]],
        pairs.loc[~work_again & pairs[FIRST].notna(), [POSITION, FILE, FIRST, DONE]],
        _statuses(pairs.loc[~work_again, STATUS]) + _statuses(unlisted.loc[~in_scope, STATUS]),
        _statuses(vanished[STATUS]),
    )


def _repeated(uris: "pd.Series[str]") -> "pd.Series[bool]":
    """Return which images are listed another time: the first time counts.

    Of members of an archive with the same name, the last counts, which is the one that opens.
    """
    repeated = uris.duplicated()
    members = uris[repeated]
    members = members[members.str.startswith(("tar://", "zip://"))]
    if members.empty:
        return repeated
    return repeated.where(~uris.isin(members), uris.duplicated("last"))


def _statuses(numbers: "pd.Series[int]") -> Counter[str]:
    counts = np.bincount(numbers.dropna().astype(int), minlength=len(STATUSES)).tolist()
    return +Counter(dict(zip(STATUSES, counts, strict=True)))


def _why_redone(pairs: pd.DataFrame, redo: Redo) -> pd.DataFrame:
    """Return which listed images with a row need a new one: columns named as in Counts.

    Each image has one reason, the first.
    """
    version, then = pairs[IMAGE_VERSION], pairs[f"{IMAGE_VERSION}_then"]
    reasons = pd.DataFrame(
        {
            "changed": version.notna() & (then.isna() | (version != then)),
            "stale": pairs[STALE].eq(True) & redo.stale,
            "retried": pairs[RETRY].eq(True),
            "lacking": pairs[LACKING].eq(True),
            "forced": redo.everything,
        }
    )
    reasons &= reasons.cumsum(axis=1) == 1
    reasons[pairs[FILE].isna()] = False
    return reasons
