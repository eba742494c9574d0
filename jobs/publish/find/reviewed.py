"""Changed reviews -> the images of the index that they are about."""

import sqlite3

import pyarrow as pa

from captioner.jobs.publish.rows import DECIDED, NEEDED, decided
from captioner.jobs.table.reviews import Decisions

_CONCERNED = """SELECT "captioner.id", image_uri, image_sha256, caption, "captioner.marked"
    FROM images WHERE decision IS NOT NULL
    OR image_uri IN (SELECT uri FROM temp.about)
    OR image_sha256 IN (SELECT sha256 FROM temp.about WHERE sha256 IS NOT NULL)"""
_UPDATE = """UPDATE images SET needs_review = ?, text = ?, decision = ?, outdated = ?
    WHERE "captioner.id" = ?"""
_TYPES = (pa.int64(), pa.string(), pa.string(), pa.string(), pa.bool_())


def apply_decisions(database: sqlite3.Connection, in_force: Decisions) -> None:
    """Bring all images that have a decision, or had one, up to date with those in force."""
    database.execute("CREATE TEMP TABLE about (uri PRIMARY KEY, sha256)")
    database.execute("CREATE INDEX temp.about_hash ON about (sha256)")
    columns = (in_force.reviews[name].to_pylist() for name in ("image_uri", "image_sha256"))
    database.executemany("INSERT INTO about VALUES (?, ?)", zip(*columns, strict=True))
    rows = _table(database.execute(_CONCERNED).fetchall())
    current = decided(rows.select(NEEDED), in_force)
    names = ("needs_review", *DECIDED.names)
    values = (*(current[name].to_pylist() for name in names), rows["id"].to_pylist())
    database.executemany(_UPDATE, zip(*values, strict=True))
    database.execute("DROP TABLE about")


def _table(rows: list[tuple[object, ...]]) -> pa.Table:
    columns = [[row[n] for row in rows] for n in range(len(_TYPES))]
    columns[-1] = [None if mark is None else bool(mark) for mark in columns[-1]]
    arrays = [pa.array(c, kind) for c, kind in zip(columns, _TYPES, strict=True)]
    return pa.table(arrays, ["id", *NEEDED])
