"""Manifests of each format, one and several in a folder; test_open_source.py tests columns."""

import gzip
import json
import subprocess
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from pyarrow import csv

from captioner.jobs.errors import UsageError
from captioner.jobs.planning.partitions import Size, read_partition
from captioner.jobs.planning.plan import make_plan
from captioner.jobs.sources.manifests import (
    csv_files,
    jsonl_files,
    parquet_files,
    streams,
    text_files,
)
from captioner.jobs.sources.open_source import open_source
from captioner.jobs.table.keys import Redo
from captioner.jobs.table.layout import OutFolder

SIX = [*(f"/photos/é {n}.jpg" for n in range(4)), "s3://bucket/4.jpg", "https://host/5.jpg?a=1,2"]
TABLE = pa.table({"image_uri": SIX, "id": [f"{n:03d}" for n in range(6)]})
FRAME = TABLE.to_pandas()
TEXT = "".join(f"{uri}\n" for uri in SIX)


def rows(source: Path) -> list[dict[str, Any]]:
    return [row for batch in open_source(source).batches for row in batch.to_pylist()]


def uris(source: Path) -> list[str]:
    return [row["image_uri"] for row in rows(source)]


def names(source: Path, folder: Path) -> list[str]:
    """Return the names of the images relative to a folder."""
    return [str(Path(uri).relative_to(folder)) for uri in uris(source)]


def write(folder: Path, files: dict[str, str | bytes | pa.Table]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, pa.Table):
            pq.write_table(content, path)
        else:
            data = content if isinstance(content, bytes) else content.encode()
            path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return folder


def with_gzip_command(path: Path, text: str) -> None:
    plain = path.with_suffix("")
    plain.write_text(text)
    subprocess.run(["gzip", plain], check=True)


def two_members(path: Path, text: str) -> None:
    """Write gzip in two members, as `cat a.gz b.gz` and parallel compressors do."""
    half = len(text) // 2
    path.write_bytes(gzip.compress(text[:half].encode()) + gzip.compress(text[half:].encode()))


def json_lines(frame: pd.DataFrame) -> str:
    return frame.to_json(orient="records", lines=True)


def write_csv_stream(path: Path) -> None:
    with pa.output_stream(path, compression="gzip") as stream:
        csv.write_csv(TABLE, stream)


def in_parts(folder: Path, suffix: str, write_part: Callable[[pd.DataFrame, Path], object]) -> None:
    folder.mkdir()
    for number in range(3):
        write_part(FRAME[2 * number : 2 * number + 2], folder / f"part-{number}{suffix}")


WRITERS: dict[str, Callable[[Path], object]] = {
    "pandas.csv": lambda path: FRAME.to_csv(path, index=False),
    "pandas.csv.gz": lambda path: FRAME.to_csv(path, index=False),
    "pandas.tsv": lambda path: FRAME.to_csv(path, index=False, sep="\t"),
    "pandas.TSV.GZ": lambda path: FRAME.to_csv(path, index=False, sep="\t", compression="gzip"),
    "pandas.jsonl.gz": lambda path: FRAME.to_json(path, orient="records", lines=True),
    "pandas.parquet": lambda path: FRAME.to_parquet(path),
    "arrow.csv": lambda path: csv.write_csv(TABLE, path),
    "arrow.csv.gz": write_csv_stream,
    "arrow.parquet": lambda path: pq.write_table(TABLE, path, row_group_size=2),
    "command.csv.gz": lambda path: with_gzip_command(path, FRAME.to_csv(index=False)),
    "command.txt.gz": lambda path: with_gzip_command(path, TEXT),
    "module.ndjson.gz": lambda path: two_members(path, json_lines(FRAME)),
    "module.txt.gz": lambda path: two_members(path, TEXT),
    "plain.jsonl": lambda path: path.write_text(json_lines(FRAME)),
    "plain.ndjson": lambda path: path.write_text(json_lines(FRAME)),
    "plain.txt": lambda path: path.write_text(TEXT),
    "windows.txt": lambda path: path.write_bytes(
        b"\xef\xbb\xbf" + TEXT.replace("\n", "\r\n\r\n \t\r\n").encode()
    ),
    "unended.txt": lambda path: path.write_text(TEXT.removesuffix("\n")),
    "csvs": lambda path: in_parts(path, ".csv.gz", lambda part, to: part.to_csv(to, index=False)),
    "jsonls": lambda path: in_parts(
        path, ".jsonl", lambda part, to: part.to_json(to, orient="records", lines=True)
    ),
    "parquets": lambda path: in_parts(path, ".parquet", lambda part, to: part.to_parquet(to)),
    "dataset": lambda path: ds.write_dataset(TABLE, path, format="parquet"),
}


@pytest.mark.parametrize("name", WRITERS)
def test_the_same_images_give_the_same_plan_from_every_kind(tmp_path: Path, name: str) -> None:
    WRITERS[name](tmp_path / name)
    run = OutFolder(tmp_path / "out").new_run()
    run.create()
    plan = make_plan(open_source(tmp_path / name), run.out, run.scratch, Size(4), Redo())
    assert (plan.partition_sizes, plan.counts.listed) == ([4, 2], 6)
    partitions = pa.concat_tables([read_partition(run.scratch, number) for number in range(2)])
    assert partitions["image_uri"].to_pylist() == SIX
    if ".txt" in name:
        assert partitions.column_names == ["image_uri", "image_version", "image_access", "replaces"]
    else:
        assert partitions["id"].to_pylist() == TABLE["id"].to_pylist()


def test_a_line_of_text_is_a_path_without_the_blanks_around_it(tmp_path: Path) -> None:
    write(tmp_path, {"list.txt": ' a b.jpg\n"c",d.jpg \n#e.jpg\n f.jpg\n', " f.jpg": ""})
    assert names(tmp_path / "list.txt", tmp_path) == ["a b.jpg", '"c",d.jpg', "#e.jpg", " f.jpg"]


def test_a_text_file_without_lines_lists_nothing(tmp_path: Path) -> None:
    write(tmp_path, {"list.txt": "", "more.txt.gz": "\n"})
    assert uris(tmp_path) == []


# Damage, and memory


def limit(monkeypatch: pytest.MonkeyPatch, name: str, value: int) -> None:
    """Set a limit in all modules that use it."""
    for module in (csv_files, jsonl_files, parquet_files, streams, text_files):
        if hasattr(module, name):
            monkeypatch.setattr(module, name, value)


@pytest.mark.parametrize("suffix", [".csv.gz", ".jsonl.gz", ".txt.gz"])
@pytest.mark.parametrize("kept", [0.0, 0.5, 0.99])
def test_a_truncated_gzip_file_is_an_error_that_names_it(
    tmp_path: Path, suffix: str, kept: float
) -> None:
    text = "\n".join(["image_uri", *map(str, range(10_000))])
    if suffix == ".jsonl.gz":
        text = "\n".join(json.dumps({"image_uri": str(n)}) for n in range(10_000))
    path = write(tmp_path, {f"list{suffix}": text}) / f"list{suffix}"
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(UsageError, match=rf"cannot read .*list{suffix}: .*(cated|empt)"):
        rows(path)


def test_a_gz_file_that_is_not_gzip_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "list.csv.gz").write_text("image_uri\na.jpg\n")
    with pytest.raises(UsageError, match=r"cannot read .*list\.csv\.gz"):
        rows(tmp_path / "list.csv.gz")


def damaged_csv(path: Path) -> None:
    path.write_text("image_uri,id\n" + "a.jpg,1\n" * 20_000 + "a.jpg\n")


def truncated_text(path: Path) -> None:
    data = gzip.compress("".join(f"{n}.jpg\n" for n in range(20_000)).encode())
    path.write_bytes(data[:-100])


def damaged_parquet(path: Path) -> None:
    pq.write_table(pa.table({"image_uri": [f"{n}.jpg" for n in range(20_000)]}), path, 1000)
    column = pq.read_metadata(path).row_group(15).column(0)
    data = bytearray(path.read_bytes())
    start = column.dictionary_page_offset
    data[start : start + 1000] = b"\xff" * 1000
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("list.csv", damaged_csv),
        ("list.txt.gz", truncated_text),
        ("list.parquet", damaged_parquet),
    ],
)
def test_rows_arrive_before_the_rest_of_the_file_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, damage: Callable[[Path], None]
) -> None:
    limit(monkeypatch, "MAX_LINE", 1000)
    limit(monkeypatch, "BATCH_ROWS", 100)
    damage(tmp_path / name)
    batches = open_source(tmp_path / name).batches
    assert next(batches).num_rows > 0
    with pytest.raises(UsageError, match=name):
        list(batches)


def test_a_long_jsonl_file_is_never_in_memory_as_a_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit(monkeypatch, "BATCH_ROWS", 100)
    line = json.dumps({"image_uri": "a.jpg", "text": "x" * 1000}) + "\n"
    path = write(tmp_path, {"list.jsonl.gz": line * 10_000}) / "list.jsonl.gz"
    tracemalloc.start()
    base = pa.total_allocated_bytes()
    most = max(pa.total_allocated_bytes() - base for _ in open_source(path).batches)
    most += tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 10_000 * len(line) / 4


@pytest.mark.parametrize("name", ["list.txt", "list.jsonl.gz"])
def test_an_endless_line_is_an_error_and_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    limit(monkeypatch, "MAX_LINE", 1000)
    write(tmp_path, {name: '{"image_uri": "a.jpg"}\n' + " " * 10_000})
    with pytest.raises(UsageError, match=rf"{name}: line 2 is too long; the limit is 1000 bytes"):
        rows(tmp_path / name)


# Several files


@pytest.mark.parametrize(
    ("value", "after"),
    [('"open', ""), ('"open', '/3.jpg,"quoted"\n'), ('"open', "/3.jpg,x\n" * 2_000_000)],
    ids=["to-the-end", "to-another-value", "to-the-end-of-much"],
)
def test_an_unclosed_quotation_mark_loses_no_image(tmp_path: Path, value: str, after: str) -> None:
    for end in ("\n", "\r\n", "\r"):
        text = f"image_uri,alt\n/1.jpg,{value}\n/2.jpg,x\n{after}".replace("\n", end)
        (tmp_path / "a.csv").write_text(text, newline="")
        with pytest.raises(UsageError, match=r"a\.csv: the row in line 2 has a quotation mark"):
            uris(tmp_path / "a.csv")


def test_values_may_have_quotation_marks_and_several_lines(tmp_path: Path) -> None:
    long = "x" * 1_000_000
    text = f'image_uri,alt\n/1.jpg,"a ""b""\nc"\n/2.jpg,5" wide\n/3.jpg,{long}\n'
    (tmp_path / "a.csv").write_text(text)
    assert [row["alt"] for row in rows(tmp_path / "a.csv")] == ['a "b"\nc', '5" wide', long]


def test_files_are_read_in_the_order_of_their_names(tmp_path: Path) -> None:
    write(tmp_path, {"c.txt": "1.gif\n", "a.txt.gz": "2.gif\n", "b/n.md": "", "b.txt": "3.gif\n"})
    source = open_source(tmp_path)
    (first, *_) = source.batches
    assert first["image_uri"].to_pylist() == [str(tmp_path / "2.gif")]
    assert names(tmp_path, tmp_path) == ["2.gif", "3.gif", "1.gif"]
    assert source.skipped == {"without an image's extension: .md": 1}


def test_columns_may_have_another_order_or_be_missing(tmp_path: Path) -> None:
    files: dict[str, dict[str, str | bytes | pa.Table]] = {
        "csv": {"1.csv": "id,image_uri\n1,a\n", "2.tsv.gz": "image_uri\tx\tid\nb\t2\t\n"},
        "jsonl": {
            "1.jsonl": '{"id": "1", "image_uri": "a"}',
            "2.ndjson.gz": '{"image_uri": "b", "x": "2"}',
        },
        "parquet": {
            "1.parquet": pa.table({"id": ["1"], "image_uri": ["a"]}),
            "2.parquet": pa.table({"image_uri": ["b"], "x": ["2"], "id": pa.nulls(1)}),
        },
    }
    for kind, parts in files.items():
        folder = write(tmp_path / kind, parts)
        one, other = rows(folder)
        assert (one["image_uri"], one["id"], one["x"]) == (str(folder / "a"), "1", None)
        assert (other["image_uri"], other["id"], other["x"]) == (str(folder / "b"), None, "2")


def test_types_are_unified_over_the_files(tmp_path: Path) -> None:
    one = pa.table({"image_uri": ["a"], "n": pa.array([1], pa.int16()), "s": [{"a": 1}]})
    uris = pa.array(["b"], pa.large_string())
    two = pa.table({"image_uri": uris, "n": pa.array([2], pa.int64()), "s": [{"b": "x"}]})
    source = open_source(write(tmp_path / "parquet", {"1.parquet": one, "2.parquet": two}))
    assert source.schema.field("n").type == pa.int64()
    values = [row["s"] for batch in source.batches for row in batch.to_pylist()]
    assert values == [{"a": 1, "b": None}, {"a": None, "b": "x"}]
    lines: dict[str, str | bytes | pa.Table] = {
        f"{n}.jsonl": json.dumps({"image_uri": "a", "x": x, "y": y, "z": None})
        for n, (x, y) in enumerate([(None, 1), (1, "text"), (0.5, None)])
    }
    source = open_source(write(tmp_path / "jsonl", lines))
    assert source.schema.types[3:] == [pa.float64(), pa.string(), pa.string()]
    table = pa.Table.from_batches(source.batches)
    assert table["x"].to_pylist() == [None, 1, 0.5]
    assert table["y"].to_pylist() == ["1", "text", None]


def test_contradicting_types_are_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    one, two = (pa.table({"image_uri": ["a"], "id": [value]}) for value in (1, "1"))
    write(tmp_path, {"1.parquet": one, "2.parquet": two})
    with pytest.raises(
        UsageError, match=r"2\.parquet: the column id is string here and int64 .* with one type"
    ):
        open_source(tmp_path)


def test_the_folders_of_a_hive_dataset_are_columns_of_text(tmp_path: Path) -> None:
    table = pa.table(
        {
            "image_uri": [f"{n}.jpg" for n in range(4)],
            "Width": ["007", "007", "a b/é", None],
            "year": [2023, 2024, 2024, 2024],
        }
    )
    ds.write_dataset(
        table,
        tmp_path,
        format="parquet",
        partitioning=["year", "Width"],
        partitioning_flavor="hive",
    )
    found = {row.pop("image_uri"): row for row in rows(tmp_path) if not row.pop("image_access")}
    assert list(found) == [str(tmp_path / f"{n}.jpg") for n in (0, 1, 3, 2)]
    assert list(found.values()) == [
        {"image_version": None, "year": year, "source_Width": width}
        for year, width in [("2023", "007"), ("2024", "007"), ("2024", None), ("2024", "a b/é")]
    ]


def test_files_of_every_kind_may_be_in_key_value_folders(tmp_path: Path) -> None:
    files = {"my%20key=1/a.txt": "a.jpg", "my%20key=2/b.txt.gz": "b.jpg", "c.txt": "c.jpg"}
    write(tmp_path / "txt", dict(files))
    assert [row["my key"] for row in rows(tmp_path / "txt")] == [None, "1", "2"]
    write(tmp_path / "csv", {"k=1/a.csv": "image_uri,k\na,1\n"})
    with pytest.raises(UsageError, match=r"a\.csv has several columns named k"):
        open_source(tmp_path / "csv")
    write(tmp_path / "bad", {"k=%FF/a.txt": "a.jpg"})
    with pytest.raises(UsageError, match=r"cannot read .*a\.txt"):
        open_source(tmp_path / "bad")


def test_manifests_in_other_folders_are_skipped_and_counted(tmp_path: Path) -> None:
    write(tmp_path, {"old/a.csv": "", "list.csv": "image_uri\nb\n", ".hidden.csv": "", "_OK": ""})
    source = open_source(tmp_path)
    assert sum(batch.num_rows for batch in source.batches) == 1
    assert source.skipped == {"manifests": 1, "hidden": 1, "without an image's extension": 1}
    (tmp_path / "list.csv").unlink()
    with pytest.raises(UsageError, match=r"no images in .*1 manifests"):
        open_source(tmp_path)


def test_text_beside_manifests_counts_as_notes(tmp_path: Path) -> None:
    write(tmp_path, {"a.csv": "image_uri\na.jpg\n", "README.txt": "where the list is from"})
    batches = [batch.to_pylist() for batch in open_source(tmp_path).batches]
    assert [row["image_uri"] for rows in batches for row in rows] == [str(tmp_path / "a.jpg")]


def test_manifests_of_several_kinds_are_an_error_that_names_two(tmp_path: Path) -> None:
    write(tmp_path, {"a.csv": "", "k=1/b.jsonl.gz": "", "c.csv": ""})
    with pytest.raises(UsageError, match=r"several kinds, such as a\.csv and k=1/b\.jsonl\.gz"):
        open_source(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path\na\n", r"2\.csv has no column image_uri; its columns are: path"),
        ("image_uri,id,id\na,1,2\n", r"2\.csv has several columns named id"),
        ("image_uri,id\na,1\nb\n", r"cannot read .*2\.csv: .*Row #3"),
    ],
)
def test_an_error_in_one_of_several_files_names_it(tmp_path: Path, text: str, message: str) -> None:
    write(tmp_path, {"1.csv": "image_uri,id\na,1\n", "2.csv": text})
    with pytest.raises(UsageError, match=message):
        rows(tmp_path)


@pytest.mark.parametrize(
    ("uri", "protocol"),
    [
        ("https://user:hush-hush@host/2.jpg", "https"),
        ("zip://a:b@c.jpg::s3://key:hush-hush@bucket/x.zip", "s3"),
    ],
)
def test_a_password_in_a_manifest_is_refused_and_not_repeated(
    tmp_path: Path, uri: str, protocol: str
) -> None:
    lines = ["https://host:80/0@2x.jpg", "zip://a:b@c.jpg::/x.zip", "https://host/x://a:b@c.jpg"]
    write(tmp_path, {"list.txt": "\n".join(lines)})
    assert uris(tmp_path / "list.txt") == lines
    write(tmp_path, {"list.txt": "\n".join([*lines, uri])})
    with pytest.raises(UsageError, match=r"list\.txt: .* in row 4 has a password") as caught:
        rows(tmp_path / "list.txt")
    assert f"[storage_options.{protocol}]" in str(caught.value)
    assert "hush-hush" not in str(caught.value)


def test_a_folder_may_be_named_like_a_manifest(tmp_path: Path) -> None:
    FRAME.iloc[:2].to_parquet(write(tmp_path, {"list.parquet/x.md": ""}) / "list.parquet/0.parquet")
    assert uris(tmp_path / "list.parquet") == SIX[:2]
