import errno
import json
import os
import tracemalloc
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from captioner.jobs.errors import UsageError
from captioner.jobs.sources import folders as source_module
from captioner.jobs.sources.listing import local as local_listing
from captioner.jobs.sources.listing.filters import AllImages
from captioner.jobs.sources.open_source import open_source
from captioner.jobs.sources.options import SourceOptions
from captioner.jobs.storage.file_types import is_image_name
from captioner.jobs.storage.uris import image_uri


def touch(folder: Path, names: Iterable[str]) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return folder


def rows(source: str | Path) -> list[dict[str, Any]]:
    return [row for batch in open_source(source).batches for row in batch.to_pylist()]


def uris(source: str | Path) -> list[str]:
    return [row["image_uri"] for row in rows(source)]


def manifest(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


# Directories and globs


def test_a_directory_is_listed_recursively_in_the_order_of_names(tmp_path: Path) -> None:
    touch(tmp_path, ["b.jpg", "a/2.png", "a/1.JPEG", "c/d/e.webp"])
    expected = ["a/1.JPEG", "a/2.png", "b.jpg", "c/d/e.webp"]
    assert uris(tmp_path) == [str(tmp_path / name) for name in expected]


def test_hidden_files_and_other_files_are_skipped_and_counted(tmp_path: Path) -> None:
    touch(tmp_path, ["a.jpg", ".hidden.jpg", ".cache/b.jpg", "notes.txt", "README"])
    source = open_source(tmp_path)
    assert sum(batch.num_rows for batch in source.batches) == 1
    assert source.skipped == {
        "hidden": 2,
        "without an image's extension: .txt": 1,
        "without an image's extension": 1,
    }


def test_pictures_that_are_not_opened_are_counted_by_extension(tmp_path: Path) -> None:
    for name in ("a.JXL", "b.nef", "c.HIF", "d.psd", "e.svg", "f.SVG", "g.pdf", "h.json"):
        (tmp_path / name).touch()
    source = open_source(tmp_path)
    (batch,) = source.batches
    assert len(batch) == 4
    assert source.skipped == {
        "not opened: .svg": 2,
        "not opened: .pdf": 1,
        "without an image's extension: .json": 1,
    }


def test_with_any_extension_every_file_that_is_not_hidden_is_an_image(tmp_path: Path) -> None:
    touch(tmp_path, ["0a1b", "a.jpg", "list.csv", ".hidden", ".cache/b"])
    expected = [str(tmp_path / name) for name in ("0a1b", "a.jpg", "list.csv")]
    for source in (tmp_path, f"{tmp_path}/*"):
        batches = open_source(source, SourceOptions(any_extension=True)).batches
        assert [uri for batch in batches for uri in batch["image_uri"].to_pylist()] == expected
    (batch,) = open_source(tmp_path / "0a1b", SourceOptions(any_extension=True)).batches
    assert batch["image_uri"].to_pylist() == expected[:1]


@pytest.mark.parametrize(
    ("source", "vanished"),
    [
        ("photos", ["photos/a.jpg", "photos/b/c.png"]),
        ("photos/*.jpg", ["photos/a.jpg"]),
        ("photos/**/*.png", ["photos/b/c.png"]),
        ("photos/x.jpg", []),
    ],
)
def test_only_what_a_source_would_list_is_in_its_scope(
    tmp_path: Path, source: str, vanished: list[str]
) -> None:
    touch(tmp_path, ["photos/x.jpg", "photos/b/x.png"])
    names = [
        "photos/a.jpg",
        "photos/b/c.png",
        "photos/.d.jpg",
        "photos/.d/h.jpg",
        "photos/e.md",
        "photo/f.jpg",
    ]
    scope = open_source(tmp_path / source).scope
    assert [name for name in names if scope(str(tmp_path / name))] == vanished


def test_manifests_beside_images_are_skipped_and_counted_wherever_they_are(tmp_path: Path) -> None:
    touch(tmp_path, ["0/list.csv", "a.csv.gz", "b.parquet", "m.jpg", "z.jsonl", "z.md"])
    source = open_source(tmp_path)
    assert [b["image_uri"].to_pylist() for b in source.batches] == [[str(tmp_path / "m.jpg")]]
    assert source.skipped == {"manifests": 4, "without an image's extension: .md": 1}


@pytest.mark.parametrize("image", ["", "c/9.jpg"])
def test_each_folder_is_scanned_once_whatever_is_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, image: str
) -> None:
    touch(tmp_path, ["a/notes.md", "b/k.md", "c/k.md", "list.csv", *([image] if image else [])])
    (tmp_path / "list.csv").write_text("image_uri\n1.jpg\n")
    scanned = []
    walk = local_listing._walk
    monkeypatch.setattr(
        local_listing, "_walk", lambda path, *rest: scanned.append(path) or walk(path, *rest)
    )
    assert uris(tmp_path) == [str(tmp_path / (image or "1.jpg"))]
    assert scanned == [str(tmp_path), *(str(tmp_path / name) for name in "abc")]


def test_linked_folders_are_followed_and_loops_end(tmp_path: Path) -> None:
    photos = touch(tmp_path / "photos", ["a/1.jpg"])
    touch(tmp_path / "elsewhere", ["2.jpg"])
    (photos / "a" / "up").symlink_to(photos)
    (photos / "linked").symlink_to(tmp_path / "elsewhere")
    (photos / "self").symlink_to("self")
    assert uris(photos) == [str(photos / "a/1.jpg"), str(photos / "linked/2.jpg")]


def test_a_broken_link_named_like_an_image_is_listed(tmp_path: Path) -> None:
    (tmp_path / "gone.jpg").symlink_to("nowhere.jpg")
    assert rows(tmp_path) == [{"image_uri": str(tmp_path / "gone.jpg"), "image_version": None}]


def test_a_link_that_may_be_to_a_folder_on_a_missing_disk_is_counted(tmp_path: Path) -> None:
    photos = touch(tmp_path / "photos", ["a.jpg", "b/.c.md"])
    (photos / "unplugged").symlink_to(tmp_path / "disk")
    (photos / "below a file").symlink_to(photos / "a.jpg" / "folder")
    (photos / "not to be followed").symlink_to("x" * 1000)  # an error as of a mount that is dead
    (photos / "not to be followed.jpg").symlink_to("x" * 1000)
    (photos / "itself").symlink_to("itself")
    (photos / ".lock").symlink_to("nobody@nowhere:1")
    for name in ("gone.jpg", "gone.tar", "gone.txt"):
        (photos / name).symlink_to("nowhere")
    source = open_source(photos)
    (batch,) = source.batches
    assert batch["image_uri"].to_pylist() == [f"{photos}/a.jpg", f"{photos}/gone.jpg"]
    assert source.skipped["unreadable folders"] == 4
    assert source.skipped["hidden"] == 2


def test_a_folder_whose_mount_is_dead_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path, ["a.jpg", "mount/b.jpg"])
    stat = os.stat

    def dead(path: Any, **options: Any) -> os.stat_result:
        if str(path).endswith("/mount"):
            raise OSError(errno.ENOTCONN, "Transport endpoint is not connected")
        return stat(path, **options)

    monkeypatch.setattr(local_listing.os, "stat", dead)
    source = open_source(tmp_path)
    assert [batch["image_uri"].to_pylist() for batch in source.batches] == [[f"{tmp_path}/a.jpg"]]
    assert source.skipped == {"unreadable folders": 1}


def test_listing_a_large_folder_takes_little_memory(tmp_path: Path) -> None:
    touch(tmp_path, [f"photograph {n:06d}.jpg" for n in range(10_000)])
    tracemalloc.start()
    try:
        records = local_listing.local_records(str(tmp_path), AllImages(is_image_name))
        next(records)
        assert tracemalloc.get_traced_memory()[1] < 10_000 * 150
    finally:
        tracemalloc.stop()


def test_the_version_changes_with_the_file(tmp_path: Path) -> None:
    path = touch(tmp_path, ["a.jpg"]) / "a.jpg"
    os.utime(path, ns=(0, 1234567890))
    assert rows(tmp_path)[0]["image_version"] == "1234567890-1"
    path.write_bytes(b"xy")
    os.utime(path, ns=(0, 1234567890))
    assert rows(tmp_path)[0]["image_version"] == "1234567890-2"


def test_the_key_does_not_depend_on_how_the_source_is_spelt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path / "photos", ["a.jpg"])
    monkeypatch.chdir(tmp_path)
    one = [str(tmp_path / "photos" / "a.jpg")]
    for spelling in ("photos", "photos/", "./photos/../photos", (tmp_path / "photos").as_uri()):
        assert uris(spelling) == one
    assert uris("photos/*.jpg") == uris("photos/a.jpg") == one


def test_a_glob_finds_images_in_the_order_of_names(tmp_path: Path) -> None:
    touch(tmp_path, ["b/1.jpg", "a/1.jpg", "a/.hidden.jpg", "a/1.txt", "a/c/2.jpg"])
    assert uris(f"{tmp_path}/*/*") == [str(tmp_path / "a/1.jpg"), str(tmp_path / "b/1.jpg")]
    assert len(uris(f"{tmp_path}/**/*.jpg")) == 3


@pytest.mark.parametrize("name", ["[2024]*", "photos::raw"])
def test_a_directory_may_have_a_name_that_looks_like_more(tmp_path: Path, name: str) -> None:
    folder = touch(tmp_path / name, ["a.jpg"])
    assert uris(folder) == [str(folder / "a.jpg")]


def test_a_name_that_is_not_utf8_becomes_a_file_url(tmp_path: Path) -> None:
    with open(os.fsencode(tmp_path) + b"/\xff.jpg", "wb"):  # noqa: PTH123
        pass
    (row,) = rows(tmp_path)
    assert row["image_uri"] == f"{tmp_path.as_uri()}/%FF.jpg"
    assert row["image_version"].endswith("-0")


def test_images_have_the_same_keys_in_a_listing_as_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = (b"plain", "ü".encode(), b"no\xff", b"a b%20", b"x::y", b"file:")
    files = (b"1.jpg", "ö.jpg".encode(), b"no\xfe.jpg", b"c d%41.jpg", b"http:z.jpg", b"e::f.jpg")
    for folder in folders:
        touch(tmp_path / os.fsdecode(folder), map(os.fsdecode, files))
    alone = {image_uri(str(path)) for path in tmp_path.rglob("*.jpg")}
    assert {*uris(tmp_path)} == alone and len(alone) == len(folders) * len(files)
    for folder in folders:
        monkeypatch.chdir(tmp_path / os.fsdecode(folder))
        assert {*uris(".")} == {image_uri(os.fsdecode(name)) for name in files}


def test_a_long_listing_comes_in_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_module, "BATCH_ROWS", 4)
    touch(tmp_path, [f"{n}.jpg" for n in range(10)])
    assert [batch.num_rows for batch in open_source(tmp_path).batches] == [4, 4, 2]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
def test_a_folder_that_may_not_be_read_is_counted(tmp_path: Path) -> None:
    touch(tmp_path, ["a.jpg", "secret/b.jpg"])
    (tmp_path / "secret").chmod(0)
    source = open_source(tmp_path)
    assert sum(batch.num_rows for batch in source.batches) == 1
    assert source.skipped == {"unreadable folders": 1}


def test_a_source_without_images_is_an_error_that_says_so(tmp_path: Path) -> None:
    touch(tmp_path, ["a.md"])
    with pytest.raises(UsageError, match=r"no images in .* 1 without an image's extension"):
        open_source(tmp_path)
    with pytest.raises(UsageError, match="no images"):
        open_source(f"{tmp_path}/*.jpg")


def test_a_source_that_is_not_there_or_not_known_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        open_source(tmp_path / "none")
    touch(tmp_path, ["list.xlsx"])
    with pytest.raises(UsageError, match=r"neither an image nor a manifest nor an archive \(\.csv"):
        open_source(tmp_path / "list.xlsx")
    with pytest.raises(UsageError, match="memory://none/photos does not exist"):
        open_source("memory://none/photos")


# Manifests


def test_relative_paths_are_relative_to_the_manifest(tmp_path: Path) -> None:
    touch(tmp_path, ["a.jpg"])
    text = "image_uri\na.jpg\nsub/../b.jpg\n/c.jpg\nfile:///d%20e.jpg\nhttps://host/f.jpg?x=1\n"
    path = manifest(tmp_path, "list.csv", text)
    found = rows(path)
    assert [row["image_uri"] for row in found] == [
        str(tmp_path / "a.jpg"),
        str(tmp_path / "b.jpg"),
        "/c.jpg",
        "/d e.jpg",
        "https://host/f.jpg?x=1",
    ]
    assert found[0]["image_version"].endswith("-1")
    assert [row["image_version"] for row in found[1:]] == [None] * 4


def test_csv_columns_are_text_and_an_empty_field_is_null(tmp_path: Path) -> None:
    text = 'id,image_uri,caption,note\n007,a.jpg,"two\nlines, quoted",\nNA,b.jpg,1.0,""\n'
    source = open_source(manifest(tmp_path, "list.csv", "\ufeff" + text))
    assert source.schema.names[3:] == ["id", "source_caption", "note"]
    (batch,) = source.batches
    assert batch["id"].to_pylist() == ["007", "NA"]
    assert batch["source_caption"].to_pylist() == ["two\nlines, quoted", "1.0"]
    assert batch["note"].to_pylist() == [None, ""]


def test_csv_columns_without_a_value_stay_text(tmp_path: Path) -> None:
    path = manifest(tmp_path, "list.csv", "image_uri,note\na.jpg,\n")
    assert open_source(path).schema.field("note").type == pa.string()


def test_jsonl_values_keep_the_type_that_their_whole_column_has(tmp_path: Path) -> None:
    lines: list[dict[str, Any]] = [
        {"image_uri": "a.jpg", "id": 1, "score": 1, "mixed": 1, "date": "2024-01-01", "none": None},
        {"image_uri": "b.jpg", "id": 2, "score": 0.5, "mixed": "x", "tags": ["é"], "big": 2**70},
    ]
    text = "\n".join(json.dumps(line) for line in lines) + "\n\n"
    source = open_source(manifest(tmp_path, "list.jsonl", text))
    (batch,) = source.batches
    kinds = {name: source.schema.field(name).type for name in source.schema.names[3:]}
    assert kinds == {
        "id": pa.int64(),
        "score": pa.float64(),
        **dict.fromkeys(("mixed", "date", "none", "tags", "big"), pa.string()),
    }
    assert batch["mixed"].to_pylist() == ["1", "x"]
    assert batch["tags"].to_pylist() == [None, '["é"]']
    assert batch["big"].to_pylist() == [None, str(2**70)]


def test_parquet_columns_pass_through_as_they_are(tmp_path: Path) -> None:
    table = pa.table(
        {
            "image_uri": pa.array(["a.jpg", "b.jpg"]).dictionary_encode(),
            "width": pa.array([1, None], pa.int16()),
            "tags": [["x"], []],
        }
    )
    pq.write_table(table, tmp_path / "list.parquet")
    source = open_source(tmp_path / "list.parquet")
    assert source.schema.field("source_width").type == pa.int16()
    (batch,) = source.batches
    assert batch["image_uri"].to_pylist() == [str(tmp_path / "a.jpg"), str(tmp_path / "b.jpg")]
    assert batch["tags"].to_pylist() == [["x"], []]


@pytest.mark.parametrize(
    ("name", "text"), [("list.csv", "image_uri,id\n"), ("list.txt", ""), ("list.txt", "\n")]
)
def test_a_manifest_without_rows_lists_nothing(tmp_path: Path, name: str, text: str) -> None:
    assert rows(manifest(tmp_path, name, text)) == []


def test_text_in_a_directory_is_a_manifest_only_if_it_looks_like_one(
    tmp_path: Path,
) -> None:
    touch(tmp_path / "elsewhere", ["0a1b"])
    folder = tmp_path / "photos"
    touch(folder, ["notes.txt"])
    lines = ["a.JPG", "https://host/b.png?size=1", "s3://bucket/c d.jpg", "../elsewhere/0a1b"]
    notes = manifest(folder, "notes.txt", "\n".join([*lines, "The last ones are lost."]))
    message = r"no images in .*photos \(it has text files such as notes\.txt: name one as SOURCE"
    with pytest.raises(UsageError, match=message):
        open_source(folder)
    assert len(uris(notes)) == 5
    manifest(folder, "notes.txt", "\n".join(lines))
    assert len(uris(folder)) == 4
    manifest(folder, "README.txt", "Photographs are elsewhere.")
    with pytest.raises(UsageError, match=r"such as README\.txt"):
        open_source(folder)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("list.csv", "", "cannot read"),
        ("list.csv", "path,id\na.jpg,1\n", "has no column image_uri; its columns are: path, id"),
        ("list.csv", "image_uri,id,id\na.jpg,1,2\n", "several columns named id"),
        ("list.csv", "image_uri,id\n,1\n ,2\n", "list.csv has 2 rows, but names no image"),
        ("list.csv", "image_uri,id\na.jpg,1\nb.jpg\n", "cannot read"),
        ("list.jsonl", '{"image_uri": "a.jpg"}\n{', "line 2 is not JSON"),
        ("list.jsonl", '["a.jpg"]\n', "line 1 is not a JSON object"),
        ("list.jsonl", '{"image_uri": 1}\n', "must hold text, not int64"),
        ("list.jsonl", '{"image_uri": "a.jpg", "id": 1, "id": 2}\n', "line 1 has several .* 'id'"),
        ("list.jsonl", "{}\n", "has no column image_uri"),
        ("list.parquet", "text", "cannot read"),
    ],
)
def test_a_broken_manifest_is_an_error_that_says_where(
    tmp_path: Path, name: str, text: str, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        rows(manifest(tmp_path, name, text))


def test_a_manifest_that_is_not_utf8_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_bytes(b'image_uri\n"\xff.jpg"\n')
    with pytest.raises(UsageError, match=r"list\.csv: line 2 is not UTF-8"):
        rows(tmp_path / "list.csv")
    for name, line in (("list.jsonl", b'{"image_uri": "%s.jpg"}\n'), ("list.txt", b"%s.jpg\r\n")):
        (tmp_path / name).write_bytes(line % b"a" + b"\n" + line % b"\xff")
        with pytest.raises(UsageError, match=rf"{name}: line 3 is not UTF-8"):
            rows(tmp_path / name)
