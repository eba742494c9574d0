"""Search the index: the images whose texts fit words best."""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from captioner.jobs.publish.find.database import indexed_schema, opened
from captioner.jobs.publish.find.query import parse_query
from captioner.jobs.rows.where import Where, parse_where

MAPPED_BYTES = 4 * 1024**3  # of the index, read without copies
COLUMNS = "image_uri, text, confidence, needs_review, decision"  # of `images`, see found_image


@dataclass(frozen=True)
class Found:
    """An image that was found; the higher the `score`, the better it fits."""

    image_uri: str
    text: str | None
    confidence: float | None
    needs_review: bool | None
    decision: str | None
    score: float


@dataclass(frozen=True)
class SearchResult:
    """The images that were found, best first; `partial` if no text has all the words."""

    found: Sequence[Found]
    partial: bool = False


def search_words(index: Path, query: str, where: str | None, limit: int) -> SearchResult:
    """Find the images whose text has all the words of a query or, if none has, some of them.

    The index must exist. Raise UsageError for a query or condition that makes no sense.
    """
    parsed = parse_query(query)
    with opened(index) as database:
        database.execute(f"PRAGMA mmap_size = {MAPPED_BYTES}")
        condition = condition_of(database, where)
        if found := _matches(database, parsed.all_parts, condition, limit):
            return SearchResult(found)
        found = _matches(database, parsed.any_part, condition, limit)
    return SearchResult(found, partial=bool(found))


def condition_of(database: sqlite3.Connection, where: str | None) -> Where | None:
    """Parse a condition on the columns of the index; None without one."""
    return parse_where(where, indexed_schema(database)) if where else None


def found_image(row: Sequence[Any]) -> Found:
    """Return a row of COLUMNS and a score."""
    uri, text, confidence, needs_review, decision, score = row
    mark = None if needs_review is None else bool(needs_review)
    return Found(uri, text, confidence, mark, decision, score)


def _matches(
    database: sqlite3.Connection, expression: str, where: Where | None, limit: int
) -> list[Found]:
    """Return the best matches by BM25, of equals the surest first.

    Every match is ranked; only the rows of those that may be shown are read.
    """
    rows = 'JOIN images ON "captioner.id" = "captioner.place"'
    sql = f"""
        WITH matches AS (
            SELECT "captioner.place" AS place, "captioner.score" AS score
            FROM (
                SELECT rowid AS "captioner.place", rank AS "captioner.score"
                FROM words WHERE words MATCH ?
            ) {f"{rows} WHERE {where.sql}" if where else ""}
        ), best AS (
            SELECT score FROM matches ORDER BY score LIMIT ?
        )
        SELECT {COLUMNS}, -matches.score FROM matches JOIN images ON "captioner.id" = matches.place
        WHERE matches.score <= (SELECT max(best.score) FROM best)
        ORDER BY matches.score, confidence DESC, matches.place LIMIT ?"""
    parameters = (expression, *(where.parameters if where else ()), limit, limit)
    return [found_image(row) for row in database.execute(sql, parameters)]
