"""Groups of images that are the same picture: identical bytes, or nearly the same embedding."""

import json
import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

from captioner.jobs.publish.find.database import opened
from captioner.jobs.publish.find.pairs import similar_pairs
from captioner.jobs.table.embeddings import embedding_captioners, read_embeddings
from captioner.jobs.table.layout import OutFolder

_IDENTICAL = """SELECT image_sha256 FROM images WHERE image_sha256 IS NOT NULL
    GROUP BY image_sha256 HAVING count(*) > 1"""
_IN_TABLE = """SELECT DISTINCT image_sha256 FROM images
    WHERE image_sha256 IN (SELECT value FROM json_each(?))"""
_URIS = "SELECT image_uri FROM images WHERE image_sha256 = ?"

Numbers = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Duplicates:
    """Images that are alike; `similarity` is that of the least similar two that were joined."""

    images: Sequence[str]
    similarity: float


def find_duplicates(out: OutFolder, index: Path, threshold: float) -> list[Duplicates]:
    """Return the groups of images that are joined by a similarity of at least `threshold`.

    Identical bytes have a similarity of 1; others are compared if OUT has embeddings. The largest
    groups come first. Memory grows by about 0.5 GB for a million images; the vectors wait on disk.
    """
    groups = _Groups()
    with opened(index) as database:
        identical = groups.numbers([sha256 for (sha256,) in database.execute(_IDENTICAL)])
        groups.join(identical, identical, np.ones(len(identical), np.float32))
        for captioner in embedding_captioners(out):
            with tempfile.TemporaryFile(prefix="captioner-") as file:
                hashes, width = _spool(out, database, captioner, file)
                _join_alike(groups, hashes, width, file, threshold)
        found = [
            Duplicates(_uris(database, hashes), similarity) for hashes, similarity in groups.all()
        ]
    return sorted(found, key=lambda group: (-len(group.images), group.images))


def _uris(database: sqlite3.Connection, hashes: Sequence[str]) -> list[str]:
    return sorted(uri for h in hashes for (uri,) in database.execute(_URIS, (h,)))


class _Groups:
    """Disjoint sets of images, which have numbers and grow as pairs are joined."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}  # by hash
        self._parents = np.empty(0, np.intp)  # the number of another image of the set, or its own
        self._lowest = np.empty(0, np.float32)  # similarity to the images it was joined with

    def numbers(self, hashes: Sequence[str]) -> Numbers:
        """Return the numbers of images; each new one is a set of its own."""
        known = self._numbers
        numbers = np.array([known.setdefault(sha256, len(known)) for sha256 in hashes], np.intp)
        new = np.arange(len(self._parents), len(known))
        self._parents = np.append(self._parents, new)
        self._lowest = np.append(self._lowest, np.full(len(new), np.inf, np.float32))
        return numbers

    def join(self, a: Numbers, b: Numbers, similarity: npt.NDArray[np.float32]) -> None:
        """Put the images of pairs [N] into one set each."""
        np.minimum.at(self._lowest, a, similarity)
        while len(a):
            a, b = self._roots(a), self._roots(b)
            apart = a != b
            a, b = a[apart], b[apart]
            np.minimum.at(self._parents, np.maximum(a, b), np.minimum(a, b))

    def _roots(self, images: Numbers) -> Numbers:
        roots = self._parents[images]
        while not np.array_equal(above := self._parents[roots], roots):
            roots = above
        self._parents[images] = roots  # the way is short from now on
        return roots

    def all(self) -> Iterator[tuple[list[str], float]]:
        """Yield the images of each set that was joined, and its lowest similarity."""
        roots = self._roots(np.arange(len(self._parents)))
        joined = np.flatnonzero(np.isin(roots, roots[np.isfinite(self._lowest)]))
        order = joined[np.argsort(roots[joined], kind="stable")]
        hashes = list(self._numbers)
        for members in np.split(order, np.flatnonzero(np.diff(roots[order])) + 1):
            if len(members):
                lowest = float(self._lowest[members].min())
                yield [hashes[number] for number in members], min(lowest, 1.0)


def _join_alike(
    groups: _Groups, hashes: Sequence[str], width: int, file: IO[bytes], threshold: float
) -> None:
    """Join the images whose embeddings, in a file, are alike."""
    if len(hashes) < 2:
        return
    vectors = np.memmap(file, np.float16, "r", shape=(len(hashes), width))
    numbers = groups.numbers(hashes)
    for i, j, similarity in similar_pairs(vectors, threshold):
        groups.join(numbers[i], numbers[j], similarity)


def _spool(
    out: OutFolder, database: sqlite3.Connection, captioner: str, file: IO[bytes]
) -> tuple[list[str], int]:
    """Write the embeddings of the table's images to a file; return their hashes, and the width."""
    spooled: dict[str, None] = {}
    width = 0
    for hashes, vectors in read_embeddings(out, [captioner]):
        listed = json.dumps(hashes.to_pylist())
        there = {sha256 for (sha256,) in database.execute(_IN_TABLE, (listed,))}
        for sha256, vector in zip(hashes.to_pylist(), vectors, strict=True):
            if sha256 in there and sha256 not in spooled:  # it may be embedded twice
                spooled[sha256] = None
                file.write(vector.tobytes())
        width = vectors.shape[1]
    file.flush()
    return list(spooled), width
