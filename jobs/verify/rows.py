"""The rows of the table, against the invariants of schemas/caption_table.py."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from captioner.jobs.table.threshold import marked
from captioner.jobs.verify.files import Rows
from captioner.jobs.verify.findings import Kind, Scope
from captioner.schemas.caption_table import Status, caption_table_schema, with_schema

BEGINNING = datetime(2020, 1, 1, tzinfo=UTC)  # before which nothing was captioned
AHEAD = timedelta(days=1)  # that the clock of a worker may be
TOLERANCE = 1e-3  # of a sum of log-probabilities, and as a share of it: they are float32
_REMEDY = "caption it again with --force and --only"
_FAILED_COLUMNS = (
    *("caption", "confidence", "word_confidence"),
    *("log_prob", "token_log_probs", "alternatives"),
)
_SHA256 = "^[0-9a-f]{64}$"


def check_rows(scope: Scope, rows: Rows) -> None:
    """Find the rows with values that they may not have."""
    table = with_schema(rows.table, caption_table_schema()).combine_chunks()
    for what, is_wrong in _checks(rows, table):
        wrong = pc.indices_nonzero(pc.fill_null(is_wrong, True))
        if len(wrong):
            first = wrong[0].as_py()
            where = f"{table['image_uri'][first]} in row {rows.start + first:,}"
            more = f" and {len(wrong) - 1:,} more" if len(wrong) > 1 else ""
            scope.fault(Kind.ROW, rows.file.path, f"{what} ({where}{more})", _REMEDY)


def _checks(rows: Rows, table: pa.Table) -> Iterator[tuple[str, pa.ChunkedArray]]:
    """Yield what may be wrong, and which rows are."""
    yield "image_uri is missing", _is_empty(table["image_uri"])
    yield from _check_image(table)
    yield from _check_outcome(table)
    yield from _check_numbers(table)
    yield from _check_origin(rows, table)
    yield from _check_former(table)


def _check_image(table: pa.Table) -> Iterator[tuple[str, pa.ChunkedArray]]:
    sha256 = table["image_sha256"]
    yield (
        "image_sha256 is not 64 hexadecimal digits",
        pc.and_(sha256.is_valid(), pc.invert(_or_true(pc.match_substring_regex(sha256, _SHA256)))),
    )
    width, height = table["width"], table["height"]
    yield "only one of width and height is known", pc.xor(width.is_null(), height.is_null())
    for name in ("width", "height"):
        yield f"{name} is not above 0", _or_false(pc.less_equal(table[name], 0))


def _check_outcome(table: pa.Table) -> Iterator[tuple[str, pa.ChunkedArray]]:
    status = table["status"].cast(pa.string())
    ok = _or_false(pc.equal(status, Status.OK))
    failed = pc.invert(ok)
    yield "status is unknown", pc.invert(pc.is_in(status, pa.array([*Status], pa.string())))
    yield "status is ok, but caption is missing", pc.and_(ok, _is_empty(table["caption"]))
    yield "status is ok, but there is an error", pc.and_(ok, table["error"].is_valid())
    for name in ("image_sha256", "width"):
        yield f"status is ok, but {name} is missing", pc.and_(ok, table[name].is_null())
    yield "status is not ok, but error is missing", pc.and_(failed, table["error"].is_null())
    for name in _FAILED_COLUMNS:
        what = f"status is not ok, but {name} is there"
        yield what, pc.and_(failed, table[name].is_valid())


def _check_numbers(table: pa.Table) -> Iterator[tuple[str, pa.ChunkedArray]]:
    yield "confidence is not in [0, 1]", _is_no_share(table["confidence"])
    words = table["word_confidence"]
    parts = pc.list_flatten(words)
    shares = pc.struct_field(parts, "confidence")
    yield (
        "word_confidence has one without word",
        _rows_with(words, _is_empty(pc.struct_field(parts, "word"))),
    )
    yield (
        "word_confidence has one that is not in [0, 1]",
        _rows_with(words, pc.or_(shares.is_null(), _is_no_share(shares))),
    )
    log_prob, tokens = table["log_prob"], table["token_log_probs"]
    yield "log_prob is not a log-probability", _is_no_log(log_prob)
    alternatives = table["alternatives"]
    texts = pc.struct_field(pc.list_flatten(alternatives), "caption")
    yield (
        "alternatives has one without caption",
        _rows_with(alternatives, _is_empty(texts)),
    )
    yield (
        "token_log_probs are not log-probabilities",
        _rows_with(tokens, _or_true(_is_no_log(pc.list_flatten(tokens)))),
    )
    total = pa.chunked_array([_sums(tokens.combine_chunks())])
    limit = pc.add(TOLERANCE, pc.multiply(TOLERANCE, pc.abs(total)))
    differ = pc.greater(pc.abs(pc.subtract(total, log_prob.cast(pa.float64()))), limit)
    yield "log_prob is not the sum of token_log_probs", _or_false(differ)
    yield "log_prob is missing", pc.and_(log_prob.is_null(), tokens.is_valid())


def _check_origin(rows: Rows, table: pa.Table) -> Iterator[tuple[str, pa.ChunkedArray]]:
    named = pa.array(sorted(rows.file.captioners), pa.string())
    what = "captioner is not named in the metadata of the file"
    yield what, pc.invert(pc.is_in(table["captioner"], named))
    yield "run_id is missing", _is_empty(table["run_id"])
    at, limit = table["annotated_at"], datetime.now(UTC) + AHEAD
    early, late = (pa.scalar(time, at.type) for time in (BEGINNING, limit))
    yield "annotated_at is implausible", pc.or_(pc.less(at, early), pc.greater(at, late))
    marks = table["needs_review"]
    if rows.file.threshold is None:
        yield "needs_review is there without a threshold", marks.is_valid()
        return
    by_rule = marked(table, rows.file.threshold)["needs_review"]
    same = pc.or_(pc.and_(by_rule.is_null(), marks.is_null()), _or_false(pc.equal(by_rule, marks)))
    yield "needs_review does not follow from the threshold", pc.invert(same)


def _check_former(table: pa.Table) -> Iterator[tuple[str, pa.ChunkedArray]]:
    former, declined = table["former"], table["declined"]
    confidence = pc.struct_field(former, "confidence")
    yield "former has a confidence that is not in [0, 1]", _is_no_share(confidence)
    for name, column in (("former", former), ("declined", declined)):
        empty = _is_empty(pc.struct_field(column, "captioner"))
        yield f"{name} has no captioner", pc.and_(column.is_valid(), empty)


def _is_empty(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    return _or_true(pc.equal(texts, ""))


def _is_no_share(values: pa.ChunkedArray) -> pa.ChunkedArray:
    in_range = pc.and_(pc.greater_equal(values, 0.0), pc.less_equal(values, 1.0))  # not for NaN
    return _or_false(pc.invert(in_range))


def _is_no_log(values: pa.ChunkedArray) -> pa.ChunkedArray:
    in_range = pc.and_(pc.is_finite(values), pc.less_equal(values, TOLERANCE))
    return _or_false(pc.invert(in_range))


def _or_true(mask: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.fill_null(mask, True)


def _or_false(mask: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.fill_null(mask, False)


def _rows_with(lists: pa.ChunkedArray, is_wrong: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return which lists have a wrong element."""
    rows = pc.list_parent_indices(lists).filter(is_wrong)
    mask = np.zeros(len(lists), bool)
    mask[rows.to_numpy()] = True
    return pa.chunked_array([mask])


def _sums(lists: pa.ListArray) -> pa.Array:
    """Return the sum of each list; null for null."""
    values = lists.flatten().to_numpy(zero_copy_only=False).astype(np.float64)
    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy()
    ends = np.cumsum(lengths)
    totals = np.concatenate([[0.0], np.cumsum(values)])
    return pa.array(totals[ends] - totals[ends - lengths], mask=lists.is_null().to_numpy(False))
