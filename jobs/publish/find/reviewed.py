"""Changed reviews -> the images of the index that they are about."""

import json
import sqlite3
from collections.abc import Sequence

import pyarrow as pa

from captioner.jobs.rows.decided import DECIDED, NEEDED, decided
from captioner.jobs.table.reviews import Decisions

SLICE = 10_000  # images or reviews that are in memory as Python objects
_CONCERNED = """SELECT "captioner.id" FROM images WHERE decision IS NOT NULL
    OR image_uri IN (SELECT uri FROM temp.about)
    OR image_sha256 IN (SELECT sha256 FROM temp.about WHERE sha256 IS NOT NULL)"""
_ROWS = """SELECT needs_review, text, decision, outdated, "captioner.id",
    image_uri, image_sha256, caption, "captioner.marked"
    FROM images WHERE "captioner.id" IN (SELECT value FROM json_each(?))"""
_UPDATE = """UPDATE images SET needs_review = ?, text = ?, decision = ?, outdated = ?
    WHERE "captioner.id" = ?"""
_CHANGED = ("needs_review", *DECIDED.names)
_TYPES = (pa.string(), pa.string(), pa.string(), pa.bool_())  # of NEEDED


def apply_decisions(database: sqlite3.Connection, in_force: Decisions) -> None:
    """Bring all images that have a decision, or had one, up to date with those in force."""
    database.execute("CREATE TEMP TABLE about (uri PRIMARY KEY, sha256)")
    database.execute("CREATE INDEX temp.about_hash ON about (sha256)")
    reviews = in_force.reviews.select(["image_uri", "image_sha256"])
    for batch in reviews.to_batches(SLICE):
        columns = (column.to_pylist() for column in batch.columns)
        database.executemany("INSERT INTO about VALUES (?, ?)", zip(*columns, strict=True))
    concerned = [number for (number,) in database.execute(_CONCERNED)]
    for start in range(0, len(concerned), SLICE):
        _apply(database, in_force, concerned[start : start + SLICE])
    database.execute("DROP TABLE about")


def _apply(database: sqlite3.Connection, in_force: Decisions, images: Sequence[int]) -> None:
    """Update those of some images, given by their numbers, whose decision has changed."""
    rows = database.execute(_ROWS, (json.dumps(images),)).fetchall()
    before = [row[: len(_CHANGED) + 1] for row in rows]  # and the image's number
    current = decided(_table([row[len(_CHANGED) + 1 :] for row in rows]), in_force)
    values = (current[name].to_pylist() for name in _CHANGED)
    after = zip(*values, (row[-1] for row in before), strict=True)
    changed = [new for new, old in zip(after, before, strict=True) if new != old]
    database.executemany(_UPDATE, changed)


def _table(rows: list[tuple[object, ...]]) -> pa.Table:
    """Return rows with the columns NEEDED."""
    columns = [[row[n] for row in rows] for n in range(len(_TYPES))]
    columns[-1] = [None if mark is None else bool(mark) for mark in columns[-1]]
    arrays = [pa.array(c, kind) for c, kind in zip(columns, _TYPES, strict=True)]
    return pa.table(arrays, list(NEEDED))
