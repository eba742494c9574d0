"""Manifests as spreadsheets, other systems and broken programs write them."""

import gzip
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from captioner.jobs.errors import UsageError
from captioner.jobs.sources.manifests.manifest import NO_URI
from captioner.jobs.sources.manifests.streams import text_lines
from captioner.jobs.sources.open_source import open_source
from captioner.jobs.sources.options import SourceOptions
from captioner.jobs.sources.s3_inventory.data_files import data_rows
from captioner.jobs.storage.parquet.batches import _size
from tests.support.hostile_inputs import write_hostile

CSV = "image_uri,label\na.jpg,Büro\n"


def rows(source: Path | str) -> list[dict[str, Any]]:
    return [row for batch in open_source(source).batches for row in batch.to_pylist()]


def written(folder: Path, name: str, content: str | bytes | pa.Table) -> Path:
    path = folder / name
    if isinstance(content, pa.Table):
        pq.write_table(content, path)
    else:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def hostile(folder: Path, name: str) -> list[dict[str, Any]]:
    return rows(write_hostile(folder, name))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "image_uri,label\na.jpg,x\n,\n \t,y\n"),
        ("a.tsv", "image_uri\tlabel\na.jpg\tx\n\t\n\ty\n"),
        ("a.jsonl", '{"image_uri": "a.jpg"}\n{"image_uri": null}\n{"label": 1}\n'),
        ("a.parquet", pa.table({"image_uri": ["a.jpg", None, ""]})),
    ],
)
def test_rows_without_an_image_are_skipped_and_counted(
    tmp_path: Path, name: str, content: str | pa.Table
) -> None:
    source = open_source(written(tmp_path, name, content))
    (batch,) = source.batches
    assert batch["image_uri"].to_pylist() == [str(tmp_path / "a.jpg")]
    assert source.skipped == {NO_URI: 2}


def test_blanks_around_a_name_and_capitals_in_a_scheme_do_not_count(tmp_path: Path) -> None:
    listed = ["\t a b.jpg ", " HTTPS://Host/A.jpg\u00a0", "S3://b/C.jpg"]
    listed.append("ZIP://a.jpg::S3://b/x.zip")
    source = written(tmp_path, "a.parquet", pa.table({"image_uri": listed}))
    assert [row["image_uri"] for row in rows(source)] == [
        *(str(tmp_path / "a b.jpg"), "https://Host/A.jpg"),
        *("s3://b/C.jpg", "zip://a.jpg::s3://b/x.zip"),
    ]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("blank", ["", " \t"])
def test_lines_are_counted_right_behind_very_many_blank_ones(
    tmp_path: Path, blank: str, end: str
) -> None:
    path, count = tmp_path / "a.txt", 150_001  # several blocks, which may end within a line
    path.write_bytes((f"a.jpg{end}" + (blank + end) * count + f"b.jpg{end}{blank}c.jpg").encode())
    assert [number for number, _ in text_lines(str(path))] == [1, count + 2, count + 3]


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-8", "utf-32-le"])
def test_a_byte_order_mark_says_which_unicode_it_is(tmp_path: Path, encoding: str) -> None:
    lines = {
        "a.csv": CSV,
        "a.tsv": CSV.replace(",", "\t"),
        "a.jsonl": '{"image_uri": "a.jpg", "label": "Büro"}\n',
        "a.txt": "a.jpg\n",
    }
    for name, text in lines.items():
        data = f"\ufeff{text}".encode(encoding)
        for suffix, content in (("", data), (".gz", gzip.compress(data))):
            (row,) = rows(written(tmp_path, name + suffix, content))
            assert row["image_uri"] == str(tmp_path / "a.jpg")
            assert row.get("label") == (None if name == "a.txt" else "Büro")


@pytest.mark.parametrize("name", ["le-without-mark.csv", "be-without-mark.jsonl"])
def test_utf16_without_a_mark_is_an_error_that_names_it(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match=r"looks like UTF-16 without a byte order mark"):
        hostile(tmp_path, f"utf16-{name}")


@pytest.mark.parametrize("name", ["cr.csv", "cr.jsonl", "cr.txt"])
def test_lines_may_end_as_on_old_macs(tmp_path: Path, name: str) -> None:
    assert [Path(row["image_uri"]).name for row in hostile(tmp_path, name)] == ["a.jpg", "b.jpg"]


def test_half_a_character_becomes_the_mark_for_one_that_is_lost(tmp_path: Path) -> None:
    (row,) = hostile(tmp_path, "surrogates.jsonl")
    assert (row["t\ufffd"], row["u"]) == ("\ufffd", '["\ufffd"]')
    with pytest.raises(UsageError, match=r"the image_uri in line 2 has half a character"):
        hostile(tmp_path, "surrogate-in-uri.jsonl")
    named = written(tmp_path, "named.jsonl", '{"url": "\\udc00.jpg"}')
    with pytest.raises(UsageError, match="the url in line 1 has half a character"):
        list(open_source(named, SourceOptions(uri_column="url")).batches)


JSON: Mapping[str, str] = {
    "deep.jsonl": "line 1 is nested too deeply",
    "endless-integer.jsonl": "line 1 has a number of too many digits",
    "many-keys.jsonl": "line 1 has several values named '1'",
    "new-keys.jsonl": "up to line 2000, objects have 2001 different names",
    "integer-no-float.jsonl": "the value of n in line 2 cannot be kept",
}


@pytest.mark.parametrize("name", JSON)
def test_json_that_no_table_holds_is_an_error_with_its_line(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match=rf"{name}: {JSON[name]}"):
        hostile(tmp_path, name)


def test_an_integer_beyond_64_bits_becomes_text(tmp_path: Path) -> None:
    assert hostile(tmp_path, "huge-integer.jsonl")[0]["n"] == str(2**80)


def test_all_types_of_text_and_lists_in_parquet_are_read(tmp_path: Path) -> None:
    source = open_source(write_hostile(tmp_path, "views.parquet"))
    table = pa.Table.from_batches(source.batches)
    assert table["label"].to_pylist() == ["x", None]
    assert table["views"].to_pylist() == [["x"], None]
    assert table["tags"].to_pylist() == [{"a": "x"}] * 2
    assert not [kind for kind in source.schema.types if "view" in str(kind) or "large" in str(kind)]
    pq.write_table(table, tmp_path / "again.parquet")
    assert len(hostile(tmp_path, "dictionary-uri.parquet")) == 2


def test_maps_in_parquet_are_read_and_their_size_is_known(tmp_path: Path) -> None:
    tags = [{"a": "x"}, {}, None, {"b": "y", "c": "z"}]
    kind = pa.map_(pa.string(), pa.string())
    columns = {
        "image_uri": list("1234"),
        "tags": pa.array([t and [*t.items()] for t in tags], kind),
    }
    pq.write_table(pa.table(columns), tmp_path / "maps.parquet")
    rows = pa.Table.from_batches(open_source(tmp_path / "maps.parquet").batches)
    assert rows["image_uri"].to_pylist() == [str(tmp_path / n) for n in "1234"]
    whole = pa.array([[("k", "v" * 100)] * 10] * 2, kind)
    assert _size(whole.slice(1)) * 2 == _size(whole) > 2_000


def test_text_in_parquet_that_is_not_utf8_is_mended_but_in_a_uri(tmp_path: Path) -> None:
    assert [row["label"] for row in hostile(tmp_path, "not-utf8.parquet")] == ["\ufffd", "x"]
    with pytest.raises(UsageError, match=r"the column image_uri in row 2 is not UTF-8"):
        hostile(tmp_path, "uri-not-utf8.parquet")
    with pytest.raises(UsageError, match=r"the column l in row 2 is not UTF-8"):
        hostile(tmp_path, "nested-not-utf8.parquet")


PARQUET: Mapping[str, str] = {
    "encrypted.parquet": "it is encrypted",
    "encrypted-column.parquet": "it is encrypted",
    "no-columns.parquet": "has no column image_uri",
    "repeated-names.parquet": "several columns named image_uri",
    "damaged-header.parquet": "the column image_uri is damaged",
    "damaged-footer.parquet": "",
    "damaged-length.parquet": "it is not a Parquet file, or its end is missing",
    "cut.parquet": "it is not a Parquet file, or its end is missing",
    "empty.parquet": "it is not a Parquet file, or its end is missing",
    "unknown-codec.parquet": "[Ll][Zz][Oo]",
    "wide.parquet": "the limit is 6000",
}


@pytest.mark.parametrize("name", PARQUET)
def test_a_parquet_file_that_cannot_be_read_says_why(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match=rf"{name}.*{PARQUET[name]}"):
        hostile(tmp_path, name)


def test_an_odd_name_of_a_column_stays_as_it_is(tmp_path: Path) -> None:
    (row, _) = hostile(tmp_path, "odd-names.parquet")
    assert {"", "a.b", "x\0y", "<b>\n", "é" * 9} < set(row)


def test_a_large_row_group_is_streamed(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    keys = pa.array(f"{n:0100}.jpg" for n in range(200_000))
    table = pa.table({"image_uri": keys, "key": keys, "bucket": pa.repeat("b", len(keys))})
    options = {"compression": "none", "use_dictionary": ["bucket"], "row_group_size": len(keys)}
    pq.write_table(table, path, **options)
    size = pq.read_metadata(path).row_group(0).total_byte_size
    md5 = hashlib.md5(path.read_bytes()).hexdigest()
    del keys, table
    before = pa.total_allocated_bytes()
    for batches in (open_source(path).batches, data_rows(str(path), md5, False, ["bucket", "key"])):
        assert next(batches).num_rows
        assert pa.total_allocated_bytes() - before < size / 3
        del batches
