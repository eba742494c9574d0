"""The language of `--where`: what it selects, in Arrow and in SQLite alike."""

import sqlite3
from datetime import UTC, datetime

import pyarrow as pa
import pytest

from captioner.jobs.errors import UsageError
from captioner.jobs.rows.where import parse_where

SCHEMA = pa.schema(
    [
        ("n", pa.int32()),
        ("image_uri", pa.string()),
        ("confidence", pa.float32()),
        ("needs_review", pa.bool_()),
        ('odd " name', pa.string()),
        ("annotated_at", pa.timestamp("us", "UTC")),
        ("token_log_probs", pa.list_(pa.float32())),
        ("big", pa.uint64()),
        ("nothing", pa.null()),
        ("clock", pa.time32("s")),
        ("former", pa.struct([("caption", pa.string())])),
    ]
)
ROWS = pa.table(
    {
        "n": [1, 2, 3, 4],
        "image_uri": ["/photos/Cats/1.jpg", "/photos/100%.jpg", "it's", None],
        "confidence": [0.7, 0.2, None, 0.9],
        "needs_review": [False, True, None, False],
        'odd " name': ["x", None, "y", "z"],
        "annotated_at": [datetime(2026, 1, day, tzinfo=UTC) for day in (1, 2, 3, 4)],
        "token_log_probs": [[0.0], None, [], None],
        "big": [0, 1, 2**63 - 1, None],
        "nothing": [None] * 4,
        "clock": [None] * 4,
        "former": [None, {"caption": None}, None, {"caption": "A dog."}],
    },
    schema=SCHEMA,
)


def by_arrow(condition: str) -> list[int]:
    return ROWS.filter(parse_where(condition, SCHEMA).expression)["n"].to_pylist()


def by_sqlite(condition: str) -> list[int]:
    where = parse_where(condition, SCHEMA)
    database = sqlite3.connect(":memory:")
    database.execute("PRAGMA case_sensitive_like = ON")
    names = [*SCHEMA.names[:6], "big"]
    columns = ", ".join('"' + name.replace('"', '""') + '"' for name in names)
    database.execute(f"CREATE TABLE t ({columns})")
    at = ROWS.schema.get_field_index("annotated_at")
    rows = ROWS.set_column(at, "annotated_at", ROWS["annotated_at"].cast(pa.string()))
    for row in rows.select(names).to_pylist():
        database.execute(f"INSERT INTO t VALUES ({', '.join('?' * len(names))})", [*row.values()])
    found = database.execute(f"SELECT n FROM t WHERE {where.sql} ORDER BY n", where.parameters)
    return [n for (n,) in found]


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("confidence >= 0.7", [1, 4]),
        ("confidence = 0.7", [1]),
        ("confidence < 16777217", [1, 2, 4]),
        ("big > 1", [3]),
        ("big = 9223372036854775807", [3]),
        ("big < 1.5 AND big > -1", [1, 2]),
        ("n < " + "9" * 5000, [1, 2, 3, 4]),
        ("confidence <> 0.7", [2, 4]),
        ("confidence != .7 and n<4", [2]),
        ("confidence BETWEEN 0.2 AND 0.7", [1, 2]),
        ("confidence not between 2e-1 and 7e-1", [4]),
        ("n IN (1, 3) OR n = +4", [1, 3, 4]),
        ("NOT (confidence IN (0.2, 0.9))", [1]),
        ("confidence NOT IN (0.2)", [1, 4]),
        ("confidence IS NULL", [3]),
        ("confidence IS NOT NULL AND NOT needs_review", [1, 4]),
        ("needs_review", [2]),
        ("needs_review = FALSE", [1, 4]),
        ("needs_review IS TRUE", [2]),
        ("image_uri LIKE '%/Cats/%'", [1]),
        ("image_uri LIKE '%/cats/%'", []),
        ("image_uri LIKE '%100\\%.jpg'", [2]),
        ("image_uri NOT LIKE '/%'", [3]),
        ("image_uri = 'it''s'", [3]),
        ('"odd "" name" = \'y\'', [3]),
        ("annotated_at > '2026-01-02'", [3, 4]),
        ("annotated_at <= '2026-01-01T01:00:00+01:00'", [1]),
        ("annotated_at < '2026-01-01T01:00:00+01:00'", []),
        ("annotated_at >= '2026-01-03T00:30:00+01:00'", [3, 4]),
        ("n = 1 OR n = 2 AND confidence > 0.5", [1]),
        ("(n = 1 OR n = 2) AND confidence > 0.5", [1]),
        ("n < 99999999999999999999 AND n > -1.5", [1, 2, 3, 4]),
    ],
)
def test_a_condition_selects_the_same_rows_in_arrow_and_in_sqlite(
    condition: str, expected: list[int]
) -> None:
    assert by_arrow(condition) == by_sqlite(condition) == expected


def test_a_column_with_parts_is_null_or_not() -> None:
    assert by_arrow("former IS NOT NULL") == [2, 4]
    assert by_arrow("NOT (former IS NOT NULL) OR n = 2") == [1, 2, 3]
    assert by_arrow("token_log_probs IS NULL AND former IS NOT NULL") == [2, 4]


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("", "character 1: expected the name of a column, not the end"),
        ("confidnce > 1", "such as confidence, not 'confidnce'"),
        ("confidence > 'a'", "character 14: expected a number"),
        ("n = true", "expected a number to compare n with"),
        ("needs_review = 1", "expected TRUE or FALSE"),
        ("image_uri = 1", "expected a 'string'"),
        ("annotated_at > 'yesterday'", "a time such as"),
        ("token_log_probs = 1", "has parts: expected IS NULL or IS NOT NULL, not '='"),
        ("former LIKE 'a'", "former has parts: expected IS NULL or IS NOT NULL, not 'LIKE'"),
        ("former IS TRUE", "expected NULL, not 'TRUE'"),
        ("former NOT IS NULL", "former has parts"),
        ("declined IS NULL", "declined works in export and review, but not in a search"),
        ("confidence", "expected a comparison of confidence"),
        ("image_uri NOT = 'x'", "expected a comparison of image_uri"),
        ("n IS TRUE", "n is neither true nor false"),
        ("n LIKE 1", "LIKE needs a column of strings"),
        ("(n = 1", "expected )"),
        ("n = 1)", "expected AND, OR or the end, not ')'"),
        ("n = 1; DROP TABLE t", "character 6: cannot read '; DROP TABLE t'"),
        ("n = 1 -- x", "cannot read '-- x'"),
        ("n = 1x", "cannot read '1x'"),
        ("image_uri = 'open", 'cannot read "\'open"'),
        ("(" * 200 + "n = 1", "too many brackets"),
        ("image_uri LIKE '\udcff%'", "at character 17: this is not UTF-8"),
        ("nothing = 'x'", "cannot be compared with 'x'"),
        ("clock > '2026-01-01'", "cannot be compared with"),
        ("n = (SELECT 1)", "expected a number to compare n with, not '('"),
    ],
)
def test_what_is_no_condition_is_refused_with_its_place(condition: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_where(condition, SCHEMA)
    assert message in str(caught.value)
    assert str(caught.value).startswith("--where")
