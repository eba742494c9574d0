"""The keys of the table: each image has one row; they wait on disk, by a hash of their URI."""

import json
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from captioner.jobs.storage.backends.paths import OutPath
from captioner.jobs.table.buckets import Buckets, buckets_together
from captioner.jobs.table.keys import FILE, POSITION
from captioner.jobs.table.layout import OutFolder
from captioner.jobs.table.read import closing, open_file
from captioner.jobs.verify.files import Rows
from captioner.jobs.verify.findings import Kind, Scope
from captioner.schemas.image_record import IMAGE_URI

_KEY = pa.schema([(IMAGE_URI, pa.string()), (FILE, pa.int32()), (POSITION, pa.int64())])
_REMEDY = "the next run, compact or --repair keeps the latest"
_OTHERS = "--repair keeps the latest of the rows in other files than {}, which cannot be read whole"
_READABLE = "--repair keeps the latest; runs and compact cannot read every file"


class Keys:
    """The keys of all rows, by the number of their file and their position in it."""

    def __init__(self, scope: Scope, files: Sequence[OutPath]) -> None:
        self._scope, self._files = scope, files
        self._buckets = Buckets(scope.scratch / "keys.arrow", _KEY)

    @property
    def rows(self) -> int:
        """The number of rows."""
        return self._buckets.rows

    def add(self, rows: Rows) -> None:
        """Add rows."""
        count = len(rows.table)
        uris = pc.fill_null(rows.table[IMAGE_URI].combine_chunks(), "")
        number = pa.repeat(pa.scalar(rows.file.number, pa.int32()), count)
        positions = pa.array(np.arange(rows.start, rows.start + count))
        self._buckets.add([uris, number, positions])

    def check(self) -> int:
        """Find images with several rows; return the number of images."""
        images = 0
        for rows in self._buckets.read(buckets_together(self.rows)):
            frame = rows.to_pandas()
            images += frame[IMAGE_URI].nunique()
            frame = frame[frame.duplicated(IMAGE_URI, keep=False) & (frame[IMAGE_URI] != "")]
            for uri, places in frame.groupby(IMAGE_URI):
                self._tell(str(uri), list(zip(places[FILE], places[POSITION], strict=True)))
        return images

    def _tell(self, uri: str, places: Sequence[tuple[int, int]]) -> None:
        where = ", ".join(f"{self._files[n].name} (row {row:,})" for n, row in places[:4])
        more = ", ..." if len(places) > 4 else ""
        what = f"{uri} has {len(places):,} rows: {where}{more}"
        self._scope.fault(Kind.KEY, self._scope.out.captions, what, self._remedy(places))

    def _remedy(self, places: Sequence[tuple[int, int]]) -> str:
        unread = {self._files[n] for n, _ in places} & {*self._scope.unread}
        if unread:
            return _OTHERS.format(", ".join(sorted(path.name for path in unread)))
        return _READABLE if self._scope.is_partial else _REMEDY


def merged_files(out: OutFolder) -> frozenset[str]:
    """Return the names of files whose rows are in a merged file that a killed command has left.

    Raise the errors of reading that file and the journal (compaction/merge_journal.py).
    """
    if not out.storage.exists(out.merge_journal):
        return frozenset()
    journal = json.loads(out.storage.read_bytes(out.merge_journal))
    path = out.captions / journal["file"]
    if not out.storage.exists(path):
        return frozenset()
    with closing(open_file(path)) as file:
        is_merged = file.metadata.num_rows == journal["rows"]
    return frozenset(journal["replaces"] if is_merged else ())
