"""The footer of a Parquet file: what it says about rows is true, or `captioner verify` finds it."""

import decimal
import io
import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from captioner.jobs.verify.findings import Kind
from captioner.jobs.verify.footer import TAIL_BYTES, GroupStatistics, is_own_footer, is_own_schema
from captioner.jobs.verify.verify import verify_table
from tests.support.broken import parts
from tests.support.rows import row, write_rows

URIS = [f"/photos/{number}.jpg" for number in range(6)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return the file of a table."""
    values = {"run_id": "r", "image_sha256": "0123456789abcdef" * 4}
    write_rows(tmp_path, [row(uri, **values) for uri in URIS], "a")
    return parts(tmp_path)[0]


def footer_of(data: bytes) -> int:
    """Return where the footer of a file begins."""
    return len(data) - TAIL_BYTES - pq.read_metadata(io.BytesIO(data)).serialized_size


def with_wrong_statistics(data: bytes) -> bytes:
    """Let the smallest URI in the footer be larger than some URIs."""
    start = footer_of(data)
    smallest = URIS[0].encode()
    assert smallest in data[start:]
    return data[:start] + data[start:].replace(smallest, URIS[4].encode())


def with_flipped_bits(data: bytes, is_fit: Callable[[pq.ParquetFile, bytes], bool]) -> bytes:
    """Flip the first bit of the footer with which all rows can be read, and that fits."""
    rows = pq.read_table(io.BytesIO(data))
    for place in range(footer_of(data), len(data) - TAIL_BYTES):
        flipped = bytearray(data)
        flipped[place] ^= 16
        try:
            file = pq.ParquetFile(io.BytesIO(flipped))
            if file.read().equals(rows) and is_fit(file, bytes(flipped)):
                return bytes(flipped)
        except (OSError, ValueError, pa.ArrowException):
            continue
    raise AssertionError("no bit of the footer is like that")


def is_passed_over(file: pq.ParquetFile, data: bytes) -> bool:
    return is_own_schema(file) and not is_own_footer(file, pa.BufferReader(data))


def has_unknown_encoding(file: pq.ParquetFile, data: bytes) -> bool:
    first = file.metadata.row_group(0).column(0)
    is_own = is_own_schema(file) and is_own_footer(file, pa.BufferReader(data))
    return is_own and "UNKNOWN" in first.encodings


FAULTS = {
    "statistics": (with_wrong_statistics, "its footer is wrong about image_uri"),
    "encodings": (
        partial(with_flipped_bits, is_fit=has_unknown_encoding),
        "its footer is wrong about image_uri",
    ),
    "bits that Arrow passes over": (
        partial(with_flipped_bits, is_fit=is_passed_over),
        "its footer is damaged",
    ),
}


@pytest.mark.parametrize("kind", FAULTS)
def test_a_footer_that_is_wrong_about_rows_is_found_and_written_again(
    path: Path, tmp_path: Path, kind: str
) -> None:
    data, rows = path.read_bytes(), pq.read_table(path)
    damage, what = FAULTS[kind]
    path.write_bytes(wrong := damage(data))
    hits = pq.read_table(path, filters=[("image_uri", "=", URIS[0])])
    assert len(hits) == (0 if kind == "statistics" else 1)
    (fault,) = verify_table(tmp_path).faults
    assert fault.kind is Kind.FILE and what in fault.what and "--repair writes" in fault.remedy
    after = verify_table(tmp_path, repair=True)
    assert after.is_right and f"wrote captions/{path.name} again" in after.repaired[0]
    assert (tmp_path / "damaged" / path.name).read_bytes() == wrong
    assert pq.read_table(path).equals(rows)
    assert len(pq.read_table(path, filters=[("image_uri", "=", URIS[0])])) == 1


def test_a_file_whose_two_schemas_differ_is_left_to_people(path: Path, tmp_path: Path) -> None:
    data = with_flipped_bits(path.read_bytes(), lambda file, _: not is_own_schema(file))
    path.write_bytes(data)
    fault = next(each for each in verify_table(tmp_path).faults if "two schemas" in each.what)
    assert "sets it aside" in fault.remedy
    verify_table(tmp_path, repair=True)
    assert path.read_bytes() == data


def test_nulls_in_lists_may_be_counted_as_arrow_18_to_24_count_them(tmp_path: Path) -> None:
    values = {"run_id": "r", "image_sha256": "0123456789abcdef" * 4}
    alternatives = [{"caption": "A dog.", "log_prob": -5.0}]
    write_rows(tmp_path, [row("/a", **values, alternatives=alternatives), row("/b", **values)])
    (path,) = parts(tmp_path)
    log_prob, data = struct.pack("<f", -5.0), path.read_bytes()
    one, none = log_prob + b"\x16\x02", log_prob + b"\x16\x00"  # Thrift for how many are null
    start, found, end = data.rpartition(one)
    assert found and len(start) > footer_of(data)
    path.write_bytes(start + none + end)
    assert verify_table(tmp_path).is_right


def healthy_columns() -> dict[str, pa.Array]:
    """Columns of a manifest, of kinds that a table may have besides its own."""
    day, texts = 86_400, ["b", None, "ä" * 5000, ""]
    of: dict[str, tuple[list[Any], pa.DataType]] = {
        "floats": ([0.0, -0.0, float("nan"), None], pa.float32()),
        "nan": ([float("nan")] * 4, pa.float64()),
        "half": ([1, 2, None, 3], pa.float16()),
        "large": ([2**63, 1, None, 2**64 - 1], pa.uint64()),
        "texts": (texts, pa.string()),
        "views": (texts, pa.string_view()),
        "bytes": ([b"\xff", b"\x00", None, b""], pa.binary()),
        "lists": ([[1, None], [], None, [3]], pa.list_(pa.int16())),
        "fixed": ([[1, 2], None, [3, 4], [5, None]], pa.list_(pa.int32(), 2)),
        "maps": ([[("a", 1)], None, [], [("b", None)]], pa.map_(pa.string(), pa.int32())),
        "decimals": ([decimal.Decimal("1.50"), None, None, None], pa.decimal128(9, 2)),
        "times": ([1, None, 3, day * 10**9], pa.timestamp("ns", "Europe/Berlin")),
        "never": (
            [253_402_300_799 * 10**6, None, -(10**17), 1],
            pa.timestamp("us", "Europe/Berlin"),
        ),
        "days": ([1, 2, None, 3], pa.date32()),
        "spans": ([1, 2, None, 3], pa.duration("us")),
        "nothing": ([None] * 4, pa.null()),
        "true": ([True, None, False, True], pa.bool_()),
    }
    nested = pa.struct({"a": pa.list_(pa.struct({"b": pa.float64(), "c": pa.string()}))})
    of["nested"] = ([{"a": [{"b": 1.0, "c": None}]}, None, {"a": None}, {"a": []}], nested)
    columns = {name: pa.array(values, kind) for name, (values, kind) in of.items()}
    unused = pa.array(["unused", "m", "n", "z"])
    return columns | {"few": pa.DictionaryArray.from_arrays([1, 2, None, 1], unused)}


def test_statistics_of_any_columns_are_true_where_nothing_is_damaged() -> None:
    table, sink = pa.table(healthy_columns()), io.BytesIO()
    pq.write_table(pa.concat_tables([table] * 3), sink, row_group_size=5)
    file = pq.ParquetFile(sink)
    assert is_own_schema(file) and is_own_footer(file, pa.BufferReader(sink.getvalue()))
    for number in range(file.num_row_groups):
        statistics = GroupStatistics(file, number)
        for batch in file.iter_batches(2, row_groups=[number]):
            statistics.add(batch)
        statistics.check_rows()
        assert not list(statistics.wrong())
