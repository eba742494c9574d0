"""Parquet files that hold images, as pandas, pyarrow and Hugging Face's datasets write them."""

import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from captioner.jobs.errors import FetchError, UsageError
from captioner.jobs.fetching.by_uri import fetch_image
from captioner.jobs.fetching.container_reader import ImageReader
from captioner.jobs.sources.open_source import open_source
from captioner.schemas.image_record import records_of
from tests.support.files import write_memory, write_tree
from tests.support.photographs import photograph

PHOTOS = [photograph(number) for number in range(6)]
IMAGES = [{"bytes": photo, "path": f"{n}.jpg"} for n, photo in enumerate(PHOTOS)]
HUGGING_FACE = pa.table(
    {"image": IMAGES, "label": list(range(6))},
    schema=pa.schema(
        [
            ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
            ("label", pa.int64()),
        ],
        metadata={"huggingface": '{"info": {"features": {"image": {"_type": "Image"}}}}'},
    ),
)
BINARY = pa.table({"jpeg": pa.array(PHOTOS, pa.large_binary()), "label": list(range(6))})


def rows(source: Path | str) -> list[dict[str, Any]]:
    return [row for batch in open_source(source).batches for row in batch.to_pylist()]


def contents(source: Path | str, max_bytes: int = 10**6) -> list[bytes | FetchError]:
    """What a worker reads of all rows."""
    records = records_of(pa.Table.from_batches(open_source(source).batches))
    found: list[bytes | FetchError] = []
    with ImageReader(records, max_bytes) as reader:
        for number in range(len(records)):
            try:
                found.append(reader.read(number))
            except FetchError as error:
                found.append(error)
    return found


WRITERS: dict[str, Callable[[Path], object]] = {
    "arrow.parquet": lambda path: pq.write_table(HUGGING_FACE, path, row_group_size=4),
    "pandas.parquet": lambda path: HUGGING_FACE.to_pandas().to_parquet(path),
    "binary.parquet": lambda path: pq.write_table(BINARY, path),
    "pandas binary.parquet": lambda path: pd.DataFrame(
        {"img": PHOTOS, "label": range(6)}
    ).to_parquet(path, compression=None),
}


@pytest.mark.parametrize("name", WRITERS)
def test_the_rows_of_a_file_are_its_images(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    WRITERS[name](path)
    found = rows(path)
    version = path.stat()
    assert [row["image_uri"] for row in found] == [f"{path}#row={n}" for n in range(6)]
    assert {row["image_version"] for row in found} == {f"{version.st_mtime_ns}-{version.st_size}"}
    assert [row["label"] for row in found] == list(range(6))
    assert [row.get("path") for row in found] in ([f"{n}.jpg" for n in range(6)], [None] * 6)
    assert not {"image", "img", "jpeg"} & set(found[0])
    assert contents(path) == PHOTOS


def test_files_are_one_table_by_folder_and_by_glob(tmp_path: Path) -> None:
    pq.write_table(HUGGING_FACE.slice(0, 4), tmp_path / "train-0.parquet")
    pq.write_table(HUGGING_FACE.slice(4).drop_columns(["label"]), tmp_path / "train-1.parquet")
    expected = [*(f"train-0.parquet#row={n}" for n in range(4)), "train-1.parquet#row=0"]
    for source in (tmp_path, f"{tmp_path}/train-*.parquet", f"{tmp_path}/*"):
        found = rows(source)
        uris = [str(Path(row["image_uri"]).relative_to(tmp_path)) for row in found]
        assert uris == [*expected, "train-1.parquet#row=1"]
        assert [row["label"] for row in found] == [0, 1, 2, 3, None, None]
        assert contents(source) == PHOTOS


def test_the_folders_of_a_hive_dataset_are_columns(tmp_path: Path) -> None:
    table = HUGGING_FACE.append_column("split", [["a", "b", "a", "a", "b", "a"]])
    ds.write_dataset(
        table, tmp_path, format="parquet", partitioning=["split"], partitioning_flavor="hive"
    )
    for source in (tmp_path, f"{tmp_path}/*/*.parquet"):
        found = rows(source)
        assert [(row["split"], row["label"]) for row in found] == [
            *(("a", n) for n in (0, 2, 3, 5)),
            *(("b", n) for n in (1, 4)),
        ]


def test_columns_that_the_table_has_are_renamed(tmp_path: Path) -> None:
    table = HUGGING_FACE.append_column("path", [list("abcdef")]).rename_columns(
        {"label": "caption"}
    )
    pq.write_table(table, tmp_path / "x.parquet")
    schema = open_source(tmp_path / "x.parquet").schema
    assert schema.names[3:] == ["source_caption", "path", "source_path"]
    assert rows(tmp_path / "x.parquet")[1]["source_path"] == "1.jpg"


def test_the_column_named_image_is_it_where_there_are_several(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    table = HUGGING_FACE.append_column("mask", HUGGING_FACE["image"]).append_column(
        "hash", BINARY["jpeg"]
    )
    pq.write_table(table, path)
    assert contents(path) == PHOTOS
    assert open_source(path).schema.names[3:] == ["label", "path"]
    pq.write_table(table.rename_columns({"image": "photo"}), path)
    with pytest.raises(UsageError, match=r"has several columns of bytes: photo, mask, hash; "):
        open_source(path)
    pq.write_table(table.rename_columns({"image": "photo"}).drop_columns(["mask"]), path)
    assert contents(path) == PHOTOS


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view()])
def test_what_grants_access_to_an_image_is_not_listed(tmp_path: Path, kind: pa.DataType) -> None:
    def write(*names: str | None) -> Path:
        paths = pa.array(names, kind)
        image = pa.StructArray.from_arrays(
            [pa.nulls(len(names), pa.binary()), paths], ["bytes", "path"]
        )
        pq.write_table(pa.table({"image": image}), tmp_path / "x.parquet")
        return tmp_path / "x.parquet"

    found = rows(write(" https://h/a b.jpg?id=1&sig=SECRET", "s3://b/a?sig=1", None, " a?b.jpg"))
    assert [row["path"] for row in found] == [
        *("https://h/a b.jpg?id=1", "s3://b/a?sig=1", None, " a?b.jpg")
    ]
    assert not any("SECRET" in str(row) for row in found)
    with pytest.raises(UsageError, match=r"x\.parquet has paths .* with a password") as caught:
        rows(write("a.jpg", "https://SECRET@h/a.jpg"))
    assert "SECRET" not in str(caught.value)


def test_columns_that_hold_other_bytes_are_not_passed_through(tmp_path: Path) -> None:
    struct = HUGGING_FACE.schema.field("image").type
    other = {
        "mask": pa.binary(),
        "large": pa.large_binary(),
        "repeated": pa.dictionary(pa.int32(), pa.binary()),
        "frames": pa.list_(struct),
        "nested": pa.struct([("crop", struct), ("x", pa.int64())]),
        "by_name": pa.map_(pa.string(), pa.binary()),
        "box": pa.list_(pa.float64(), 4),
        "size": pa.struct([("width", pa.int64())]),
        "hash": pa.binary(16),
    }
    table = HUGGING_FACE
    for name, kind in other.items():
        table = table.append_column(name, pa.nulls(len(table), kind))
    pq.write_table(table, tmp_path / "x.parquet")
    source = open_source(tmp_path / "x.parquet")
    assert source.schema.names[3:] == ["label", "box", "size", "hash", "path"]
    assert contents(tmp_path / "x.parquet") == PHOTOS


def test_a_file_with_image_uri_stays_a_manifest(tmp_path: Path) -> None:
    pq.write_table(BINARY.append_column("image_uri", [["a.jpg"] * 6]), tmp_path / "x.parquet")
    assert rows(tmp_path / "x.parquet")[0]["image_uri"] == str(tmp_path / "a.jpg")


def test_a_file_without_images_among_others_is_an_error(tmp_path: Path) -> None:
    pq.write_table(HUGGING_FACE, tmp_path / "1.parquet")
    pq.write_table(pa.table({"label": [1]}), tmp_path / "2.parquet")
    with pytest.raises(UsageError, match=r"2\.parquet has no column of images; .* are: label"):
        open_source(tmp_path)
    with pytest.raises(UsageError, match=r"has no column image_uri; its columns are: label"):
        open_source(tmp_path / "2.parquet")


def test_a_row_without_bytes_is_not_found_and_a_large_one_too_large(tmp_path: Path) -> None:
    images = [IMAGES[0], {"bytes": None, "path": "gone.jpg"}, None, {"bytes": b"x" * 9000}]
    pq.write_table(pa.table({"image": images}), tmp_path / "x.parquet")
    assert [row["path"] for row in rows(tmp_path / "x.parquet")] == [
        *("0.jpg", "gone.jpg"),
        *(None, None),
    ]
    photo, *errors = contents(tmp_path / "x.parquet", max_bytes=8000)
    assert photo == PHOTOS[0]
    assert [str(getattr(error, "status", None)) for error in errors] == [
        *("not_found", "not_found"),
        "too_large",
    ]


def test_where_a_row_has_no_bytes_its_path_is_read(tmp_path: Path) -> None:
    for name in ("1.jpg", "sub/2.jpg"):
        write_tree(tmp_path, {name: PHOTOS[int(Path(name).stem)]})
    paths = [
        "lost.jpg",
        "1.jpg",
        f" {tmp_path}/sub/2.jpg ",
        (tmp_path / "1.jpg").as_uri(),
        None,
        "",
    ]
    images = [
        {"bytes": PHOTOS[0] if n == 0 else None, "path": path} for n, path in enumerate(paths)
    ]
    pq.write_table(pa.table({"image": images}), tmp_path / "x.parquet", row_group_size=2)
    *found, null, blank = contents(tmp_path / "x.parquet")
    assert found == [PHOTOS[0], PHOTOS[1], PHOTOS[2], PHOTOS[1]]
    for error in (null, blank):
        assert isinstance(error, FetchError) and error.status == "not_found"
    uri = rows(tmp_path / "x.parquet")[2]["image_uri"]
    assert uri.endswith("#row=2") and fetch_image(uri, 10**6) == PHOTOS[2]


@pytest.mark.parametrize(
    ("kind", "path", "is_found"),
    [(pa.binary(), b"1.jpg", True), (pa.binary(), b"\xff.jpg", False), (pa.int64(), 1, False)],
)
def test_a_path_may_be_in_bytes_and_is_nothing_if_it_is_no_name(
    tmp_path: Path, kind: pa.DataType, path: object, is_found: bool
) -> None:
    write_tree(tmp_path, {"1.jpg": PHOTOS[1]})
    image = pa.StructArray.from_arrays(
        [pa.nulls(1, pa.binary()), pa.array([path], kind)], ["bytes", "path"]
    )
    pq.write_table(pa.table({"image": image}), tmp_path / "x.parquet")
    assert ("path" in rows(tmp_path / "x.parquet")[0]) == (kind == pa.int64())
    (found,) = contents(tmp_path / "x.parquet")
    assert found == PHOTOS[1] if is_found else getattr(found, "status", None) == "not_found"


def test_a_path_in_a_file_from_elsewhere_names_no_file_of_this_machine(tmp_path: Path) -> None:
    secret = tmp_path / "secret.jpg"
    secret.write_bytes(PHOTOS[0])
    images = [{"bytes": None, "path": path} for path in (str(secret), secret.as_uri(), "b.jpg")]
    column = pa.array(images, HUGGING_FACE.schema.field("image").type)
    pq.write_table(pa.table({"image": column}), tmp_path / "x.parquet")
    write_memory({"b/x.parquet": (tmp_path / "x.parquet").read_bytes(), "b/b.jpg": PHOTOS[1]})
    *refused, found = contents("memory://b/x.parquet")
    assert [str(getattr(error, "status", None)) for error in refused] == ["refused"] * 2
    assert found == PHOTOS[1]


def test_bytes_of_every_type_are_images(tmp_path: Path) -> None:
    views = pa.array(PHOTOS).cast(pa.binary_view())
    for column in (views, pa.array(PHOTOS).dictionary_encode()):
        struct = pa.StructArray.from_arrays([column], ["bytes"])
        for image in (column, struct):
            pq.write_table(pa.table({"image": image}), tmp_path / "x.parquet")
            assert contents(tmp_path / "x.parquet") == PHOTOS


def test_listing_does_not_read_the_images(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(HUGGING_FACE, path)
    column = pq.read_metadata(path).row_group(0).column(0)
    assert column.path_in_schema == "image.bytes"
    data = bytearray(path.read_bytes())
    start = column.dictionary_page_offset or column.data_page_offset
    data[start : start + column.total_compressed_size] = b"\xff" * column.total_compressed_size
    path.write_bytes(data)
    assert len(rows(path)) == 6
    assert all(isinstance(content, FetchError) for content in contents(path))


def test_a_damaged_row_group_costs_its_own_rows_only(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(HUGGING_FACE, path, row_group_size=2)
    column = pq.read_metadata(path).row_group(1).column(0)
    data = bytearray(path.read_bytes())
    start = column.dictionary_page_offset or column.data_page_offset
    data[start : start + 100] = b"\xff" * 100
    path.write_bytes(data)
    found = contents(path)
    assert found[:2] + found[4:] == PHOTOS[:2] + PHOTOS[4:]
    assert all(isinstance(error, FetchError) and str(error) for error in found[2:4])


def test_a_large_row_group_is_never_in_memory_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    size, count = 2**18, 200
    schema = pa.schema([("image", pa.binary())])
    with pq.ParquetWriter(path, schema, use_dictionary=False, write_batch_size=4) as writer:
        batches = [bytes([n]) * size for n in range(count)]
        writer.write_table(pa.table({"image": batches}), row_group_size=count)
    del batches
    records = records_of(pa.Table.from_batches(open_source(path).batches))
    base = pa.total_allocated_bytes()
    tracemalloc.start()
    most = 0
    with ImageReader(records, size) as reader:
        for number in range(count):
            assert reader.read(number) == bytes([number]) * size
            most = max(most, pa.total_allocated_bytes() - base)
    most += tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < size * count / 2


def test_a_file_anywhere_is_read_by_its_url(tmp_path: Path) -> None:
    pq.write_table(HUGGING_FACE, tmp_path / "x.parquet", row_group_size=4)
    url = "memory://bucket/x.parquet"
    with fsspec.open(url, "wb") as file:
        file.write((tmp_path / "x.parquet").read_bytes())
    found = rows(url)
    assert found[5]["image_uri"] == f"{url}#row=5" and found[5]["label"] == 5
    assert found[5]["image_version"]
    assert contents(url) == PHOTOS


def test_only_the_row_groups_of_the_rows_asked_for_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pq.write_table(HUGGING_FACE, tmp_path / "x.parquet", row_group_size=1)
    plan = pa.Table.from_batches(open_source(tmp_path / "x.parquet").batches)
    read_groups: list[tuple[list[int], list[str]]] = []
    iterate = pq.ParquetFile.iter_batches

    def counting(self: Any, size: int, groups: list[int], columns: list[str]) -> Any:
        read_groups.append((groups, columns))
        return iterate(self, size, groups, columns)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", counting)
    with ImageReader(records_of(plan.slice(2, 2)), 10**6) as reader:
        assert [reader.read(number) for number in range(2)] == PHOTOS[2:4]
    assert read_groups == [([2], ["image.bytes"]), ([3], ["image.bytes"])]
