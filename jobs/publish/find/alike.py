"""Search by a photograph: the images whose embeddings are nearest to its own, all compared."""

import json
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from captioner.jobs.publish.find.database import opened
from captioner.jobs.publish.find.photograph import embed_photograph
from captioner.jobs.publish.find.search import (
    COLUMNS,
    Found,
    SearchResult,
    condition_of,
    found_image,
)
from captioner.jobs.rows.where import Where
from captioner.jobs.table.embeddings import read_embeddings
from captioner.jobs.table.layout import OutFolder

LOOKED_UP = 500  # images whose rows are read from the index at once


def search_alike(
    out: OutFolder, index: Path, photograph: str, checkpoint: str, where: str | None, limit: int
) -> SearchResult:
    """Find the images that look most like a photograph, which is a path, a URL or an image's URI.

    A score is the cosine of the angle between two embeddings: 1 for the same picture. Raise
    UsageError as `embed_photograph` does, and for a condition that makes no sense.
    """
    with opened(index) as database:
        condition = condition_of(database, where)
        vector, captioners = embed_photograph(photograph, checkpoint, out)
        best = _Best(database, condition, limit)
        for hashes, vectors in read_embeddings(out, captioners):
            best.add(hashes.to_numpy(zero_copy_only=False), vectors.astype(np.float32) @ vector)
    return SearchResult(best.images)


class _Best:
    """The best images so far, at most `limit`."""

    def __init__(self, database: sqlite3.Connection, where: Where | None, limit: int) -> None:
        self._database, self._where, self._limit = database, where, limit
        self._found: list[tuple[str, Found]] = []  # with their hashes

    @property
    def images(self) -> Sequence[Found]:
        return [image for _, image in self._found]

    def add(self, hashes: npt.NDArray[np.object_], scores: npt.NDArray[np.float32]) -> None:
        """Add images by hash; only those with better scores are looked up in the index."""
        order = np.argsort(-scores, kind="stable")
        for start in range(0, len(order), LOOKED_UP):
            group = order[start : start + LOOKED_UP]
            better = group[scores[group] > self._worst()]
            if not len(better):
                return
            self._keep(dict(zip(hashes[better], scores[better].tolist(), strict=True)))

    def _worst(self) -> float:
        is_full = len(self._found) == self._limit
        return self._found[-1][1].score if is_full else -np.inf

    def _keep(self, scores: dict[str, float]) -> None:
        for sha256, _ in self._found:  # embedded twice
            scores.pop(sha256, None)
        rows = self._rows(list(scores))
        new = [(sha256, found_image((*values, scores[sha256]))) for sha256, *values in rows]
        self._found += new
        self._found.sort(key=lambda one: -one[1].score)
        del self._found[self._limit :]

    def _rows(self, hashes: list[str]) -> Iterator[tuple[Any, ...]]:
        condition = self._where.sql if self._where else "TRUE"
        sql = f"""SELECT image_sha256, {COLUMNS} FROM images
            WHERE image_sha256 IN (SELECT value FROM json_each(?)) AND ({condition})"""
        parameters = self._where.parameters if self._where else ()
        yield from self._database.execute(sql, (json.dumps(hashes), *parameters))
