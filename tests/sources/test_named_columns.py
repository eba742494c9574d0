"""`--uri-column` and `--image-column`: files whose columns have other names."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from captioner.jobs.errors import UsageError
from captioner.jobs.fetching.by_uri import fetch_image
from captioner.jobs.fetching.container_reader import ImageReader
from captioner.jobs.sources.open_source import open_source
from captioner.jobs.sources.options import SourceOptions
from captioner.schemas.image_record import records_of
from tests.support.photographs import photograph

LEFT, RIGHT = [photograph(n) for n in range(2)], [photograph(n) for n in range(2, 4)]
BY_URL = SourceOptions(uri_column="URL")


def rows(source: Path, options: SourceOptions) -> list[dict[str, Any]]:
    return [row for batch in open_source(source, options).batches for row in batch.to_pylist()]


def write_csv(path: Path, table: pa.Table) -> None:
    separator = "\t" if path.suffix == ".tsv" else ","
    lines = [separator.join(table.column_names)]
    lines += [separator.join(map(str, row.values())) for row in table.to_pylist()]
    path.write_text("\n".join(lines) + "\n")


def write_jsonl(path: Path, table: pa.Table) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in table.to_pylist()))


WRITERS: dict[str, Callable[[Path, pa.Table], object]] = {
    "list.csv": write_csv,
    "list.tsv": write_csv,
    "list.jsonl": write_jsonl,
    "list.parquet": lambda path, table: pq.write_table(table, path),
}


@pytest.mark.parametrize("name", WRITERS)
def test_the_uris_are_in_the_column_that_is_named(tmp_path: Path, name: str) -> None:
    table = pa.table({"TEXT": ["x", "y"], "URL": ["a.jpg", "b.jpg"], "image_uri": ["1", "2"]})
    WRITERS[name](tmp_path / name, table)
    found = rows(tmp_path / name, BY_URL)
    assert [row["image_uri"] for row in found] == [f"{tmp_path}/a.jpg", f"{tmp_path}/b.jpg"]
    assert [row["TEXT"] for row in found] == ["x", "y"]
    assert [row["source_image_uri"] for row in found] == ["1", "2"]


@pytest.mark.parametrize("name", WRITERS)
def test_a_manifest_with_other_names_is_refused_with_the_option(tmp_path: Path, name: str) -> None:
    WRITERS[name](tmp_path / name, pa.table({"URL": ["a.jpg"], "TEXT": ["x"]}))
    with pytest.raises(UsageError, match=r"no column image_uri; .* URL, TEXT; .* --uri-column"):
        rows(tmp_path / name, SourceOptions())
    with pytest.raises(UsageError, match=r"has no column url; its columns are: URL, TEXT"):
        rows(tmp_path / name, SourceOptions(uri_column="url"))


def test_a_text_file_has_no_column_to_name(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("a.jpg\n")
    assert len(rows(tmp_path / "list.txt", BY_URL)) == 1


def test_the_column_is_named_in_all_files_of_a_folder(tmp_path: Path) -> None:
    write_csv(tmp_path / "1.csv", pa.table({"URL": ["a.jpg"]}))
    write_csv(tmp_path / "2.csv", pa.table({"n": ["1"], "URL": ["b.jpg"]}))
    assert [row["n"] for row in rows(tmp_path, BY_URL)] == [None, "1"]


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """A Parquet file with two columns of images."""
    images = [[{"bytes": photo, "path": f"{n}.jpg"} for n, photo in enumerate(side)]
              for side in (LEFT, RIGHT)]  # fmt: skip
    columns = {"left": images[0], "right": images[1], "image_uri": ["s3://b/1", "s3://b/2"]}
    pq.write_table(pa.table(columns), tmp_path / "pairs.parquet")
    return tmp_path / "pairs.parquet"


@pytest.mark.parametrize(("column", "photos"), [("left", LEFT), ("right", RIGHT)])
def test_the_images_are_in_the_column_that_is_named(
    pairs: Path, column: str, photos: list[bytes]
) -> None:
    source = open_source(pairs, SourceOptions(image_column=column))
    table = pa.Table.from_batches(source.batches)
    uris = table["image_uri"].to_pylist()
    assert uris == [f"{pairs}#row={n}&column={column}" for n in range(2)]
    assert table["path"].to_pylist() == ["0.jpg", "1.jpg"]
    assert table["source_image_uri"].to_pylist() == ["s3://b/1", "s3://b/2"]
    with ImageReader(records_of(table), 10**6) as reader:
        assert [reader.read(number) for number in range(2)] == photos
    assert [fetch_image(uri, 10**6) for uri in uris] == photos
    assert all(map(source.scope, uris))


def test_the_column_is_not_part_of_a_uri_that_needs_none(tmp_path: Path) -> None:
    columns = {"image": LEFT, "a #mask": RIGHT}
    pq.write_table(pa.table(columns), tmp_path / "x.parquet")
    for name in (None, "image"):
        found = rows(tmp_path / "x.parquet", SourceOptions(image_column=name))
        assert found[1]["image_uri"] == f"{tmp_path}/x.parquet#row=1"
    (_, masked) = rows(tmp_path / "x.parquet", SourceOptions(image_column="a #mask"))
    assert masked["image_uri"] == f"{tmp_path}/x.parquet#row=1&column=a%20%23mask"
    assert fetch_image(masked["image_uri"], 10**6) == RIGHT[1]


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (None, r"several columns of bytes: left, right; .* --image-column"),
        ("middle", "has no column middle; its columns are: left, right, n"),
        ("n", "the column n must hold images as bytes, not int64"),
    ],
)
def test_a_column_without_images_is_refused(
    tmp_path: Path, column: str | None, message: str
) -> None:
    table = pa.table({"left": LEFT, "right": RIGHT, "n": [1, 2]})
    pq.write_table(table, tmp_path / "x.parquet")
    with pytest.raises(UsageError, match=message):
        rows(tmp_path / "x.parquet", SourceOptions(image_column=column))


def test_a_folder_of_manifests_takes_no_notice_of_a_column_of_images(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image_uri": ["a.jpg"]}), tmp_path / "list.parquet")
    assert len(rows(tmp_path, SourceOptions(image_column="left"))) == 1
