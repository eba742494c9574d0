"""Groups of images that are the same picture: identical bytes, or nearly the same embedding."""

import json
import sqlite3
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from captioner.jobs.publish.find.database import opened
from captioner.jobs.publish.find.pairs import similar_pairs
from captioner.jobs.table.embeddings import embedding_captioners, read_embeddings
from captioner.jobs.table.layout import OutFolder

_IDENTICAL = """SELECT image_sha256 FROM images WHERE image_sha256 IS NOT NULL
    GROUP BY image_sha256 HAVING count(*) > 1"""
_IN_TABLE = """SELECT DISTINCT image_sha256 FROM images
    WHERE image_sha256 IN (SELECT value FROM json_each(?))"""
_URIS = "SELECT image_uri FROM images WHERE image_sha256 = ?"


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
        for (sha256,) in database.execute(_IDENTICAL):
            groups.join(sha256, sha256, 1.0)
        for captioner in embedding_captioners(out):
            for first, second, similarity in _alike(out, database, captioner, threshold):
                groups.join(first, second, similarity)
        found = [
            Duplicates(_uris(database, hashes), similarity) for hashes, similarity in groups.all()
        ]
    return sorted(found, key=lambda group: (-len(group.images), group.images))


def _uris(database: sqlite3.Connection, hashes: Sequence[str]) -> list[str]:
    return sorted(uri for h in hashes for (uri,) in database.execute(_URIS, (h,)))


class _Groups:
    """Disjoint sets of images, by hash, that grow as pairs are joined."""

    def __init__(self) -> None:
        self._parents: dict[str, str] = {}
        self._similarity: dict[str, float] = {}  # of each root

    def join(self, first: str, second: str, similarity: float) -> None:
        """Put two images into one group."""
        a, b = self._root(first), self._root(second)
        lowest = min(similarity, *(self._similarity.get(root, 1.0) for root in (a, b)))
        self._parents[a] = b
        self._similarity[b] = lowest

    def _root(self, sha256: str) -> str:
        path = []
        while (parent := self._parents.setdefault(sha256, sha256)) != sha256:
            path.append(sha256)
            sha256 = parent
        self._parents.update(dict.fromkeys(path, sha256))
        return sha256

    def all(self) -> Iterator[tuple[list[str], float]]:
        """Yield the images of each group, and its similarity."""
        members: dict[str, list[str]] = defaultdict(list)
        for sha256 in self._parents:
            members[self._root(sha256)].append(sha256)
        for root, hashes in members.items():
            yield hashes, self._similarity[root]


def _alike(
    out: OutFolder, database: sqlite3.Connection, captioner: str, threshold: float
) -> Iterator[tuple[str, str, float]]:
    """Yield pairs of images in the table whose embeddings are alike."""
    with tempfile.TemporaryFile(prefix="captioner-") as file:
        hashes, width = _spool(out, database, captioner, file)
        if len(hashes) < 2:
            return
        vectors = np.memmap(file, np.float16, "r", shape=(len(hashes), width))
        for i, j, similarities in similar_pairs(vectors, threshold):
            for a, b, similarity in zip(i, j, similarities.tolist(), strict=True):
                yield hashes[a], hashes[b], similarity


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
