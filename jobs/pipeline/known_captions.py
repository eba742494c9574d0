"""Identical bytes are captioned once: an image takes the caption that its content has already.

The index (hash_index.py) says which file may have it. It is taken only from a row with the hash
itself, of the same captioner: a file that is gone or has other rows by now has none, and the image
is captioned. Two workers that meet the same bytes at the same moment both caption them.
"""

import functools
import threading
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from captioner.jobs.pipeline.hash_index import PREFIX_DIGITS, HashIndex
from captioner.jobs.storage.backends.backend import backend_of
from captioner.jobs.storage.backends.paths import OutPath
from captioner.jobs.table.layout import RunFolder
from captioner.schemas.caption_table import CONTENT_COLUMNS, Status

PAGE_ROWS = 512  # read around a hit: copies tend to lie in the order of their originals
PAGES = 16  # in memory
Values = Mapping[str, Any]  # of a row's columns
Page = tuple[pa.Table, Mapping[str, int]]  # rows, and where each hash is among them
_HASH, _CAPTIONER = "image_sha256", "captioner"


class KnownCaptions:
    """What images have as captions by their content, for one worker. `find` is thread-safe."""

    def __init__(self, run: RunFolder, captioner: str) -> None:
        self._index = HashIndex(run)
        self._captioner = captioner
        self._pages: deque[Page] = deque(maxlen=PAGES)
        self._reading = threading.Lock()

    def look(self) -> None:
        """Take in what other workers have committed since the last look."""
        self._index.look()

    def add(self, part: OutPath, hashes: str) -> None:
        """Add what this worker has committed: see `digits`."""
        self._index.add(part, hashes)

    def find(self, sha256: str) -> Values | None:
        """What the row of an image with this content has in CONTENT_COLUMNS; None if unknown."""
        for path in self._index.files_of(sha256):
            with self._reading:
                if (row := self._in_pages(sha256)) or (row := self._in_file(path, sha256)):
                    return row
        return None

    def _in_pages(self, sha256: str) -> Values | None:
        for rows, places in self._pages:
            if (place := places.get(sha256)) is not None:
                (row,) = rows.slice(place, 1).to_pylist()
                return dict(row)
        return None

    def _in_file(self, path: OutPath, sha256: str) -> Values | None:
        with suppress(OSError, LookupError, pa.ArrowException):
            if page := _page(path, sha256, self._captioner):
                self._pages.append(page)
                return self._in_pages(sha256)
        return None


@functools.lru_cache(maxsize=1)
def known_captions(run: RunFolder, captioner: str) -> KnownCaptions:
    """Those of a run, once a process."""
    return KnownCaptions(run, captioner)


def digits(hashes: list[str]) -> str:
    """Hashes as results and the log of the index have them: the first 8 bytes of each."""
    return "".join(sha256[:PREFIX_DIGITS] for sha256 in hashes)


def _page(path: OutPath, sha256: str, captioner: str) -> Page | None:
    """A row with this hash and a caption by this captioner, and those of its neighbours."""
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
    rows = file.read_row_group(group, columns=[_HASH, _CAPTIONER, *CONTENT_COLUMNS])
    rows = rows.slice(max(at - PAGE_ROWS // 2, 0), PAGE_ROWS)
    ok = pc.equal(rows["status"].cast(pa.string()), Status.OK)
    rows = rows.filter(pc.and_(ok, pc.equal(rows[_CAPTIONER], captioner)))
    places = {sha256: place for place, sha256 in enumerate(rows[_HASH].to_pylist())}
    return rows.select(CONTENT_COLUMNS).combine_chunks(), places
