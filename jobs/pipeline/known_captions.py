"""Known captions: identical bytes are captioned once.

A caption is taken only from a row with the whole hash and the same captioner. If the file that the
index (hash_index.py) names is gone or has changed, the image is captioned.
"""

import threading
from collections import deque
from collections.abc import Mapping
from contextlib import suppress

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from captioner.jobs.pipeline.hash_index import HashIndex
from captioner.jobs.pipeline.image_loader import Values
from captioner.jobs.storage.backends.backend import backend_of
from captioner.jobs.storage.backends.paths import OutPath
from captioner.jobs.table.layout import RunFolder
from captioner.schemas.caption_table import CONTENT_COLUMNS, Status, current_names

PAGE_ROWS = 512  # read around a hit: copies tend to lie in the order of their originals
PAGES = 16  # in memory at once
Page = tuple[pa.Table, Mapping[str, int]]  # rows, and the position of each hash
_HASH, _CAPTIONER = "image_sha256", "captioner"
_COLUMNS = (*CONTENT_COLUMNS, "former")  # with which the confidence has to do


class KnownCaptions:
    """The captions of a captioner by image content, for one worker. `find` is thread-safe."""

    def __init__(self, run: RunFolder, captioner: str) -> None:
        self._index = HashIndex(run)
        self._captioner = captioner
        self._pages: deque[Page] = deque(maxlen=PAGES)
        self._reading = threading.Lock()

    def refresh(self) -> None:
        """Read what other workers have committed since the last call."""
        self._index.refresh()

    def add(self, part: OutPath, digits: str) -> None:
        """Add what this worker has committed, by the `first_digits` of the hashes."""
        self._index.add(part, digits)

    def find(self, sha256: str) -> Values | None:
        """Return CONTENT_COLUMNS and `former` of a row with this hash; None without such a row."""
        for path in self._index.files_of(sha256):
            with self._reading:
                if (row := self._in_pages(sha256)) or (row := self._in_file(path, sha256)):
                    return row
        return None

    def _in_pages(self, sha256: str) -> Values | None:
        for rows, positions in self._pages:
            if (position := positions.get(sha256)) is not None:
                (row,) = rows.slice(position, 1).to_pylist()
                return dict(row)
        return None

    def _in_file(self, path: OutPath, sha256: str) -> Values | None:
        with suppress(OSError, LookupError, pa.ArrowException):
            if page := _page(path, sha256, self._captioner):
                self._pages.append(page)
                return self._in_pages(sha256)
        return None


def _page(path: OutPath, sha256: str, captioner: str) -> Page | None:
    """Read a row with this hash and a caption by this captioner, and its neighbours."""
    storage = backend_of(path)
    with storage.open_parquet(storage.open(path)) as file:
        for group in range(file.num_row_groups):
            hashes = file.read_row_group(group, columns=[_HASH])[_HASH]
            for at in np.flatnonzero(pc.equal(hashes, sha256).to_numpy()).tolist():
                page = _rows_around(file, group, at, captioner)
                if sha256 in page[1]:
                    return page
    return None


def _rows_around(file: pq.ParquetFile, group: int, at: int, captioner: str) -> Page:
    rows = file.read_row_group(group, columns=[_HASH, _CAPTIONER, *_COLUMNS])
    rows = rows.rename_columns(current_names(rows.schema))
    rows = rows.slice(max(at - PAGE_ROWS // 2, 0), PAGE_ROWS)
    ok = pc.equal(rows["status"].cast(pa.string()), Status.OK)
    rows = rows.filter(pc.and_(ok, pc.equal(rows[_CAPTIONER], captioner)))
    positions = {sha256: position for position, sha256 in enumerate(rows[_HASH].to_pylist())}
    columns = [name for name in _COLUMNS if name in rows.column_names]  # older files lack `former`
    return rows.select(columns).combine_chunks(), positions
