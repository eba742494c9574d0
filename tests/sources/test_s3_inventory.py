"""Inventories as Amazon S3 delivers them, on disk and in S3 (moto's server)."""

import os
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import fsspec
import pytest

from captioner.jobs.errors import FetchError, UsageError
from captioner.jobs.fetching.fetch import fetch
from captioner.jobs.sources.open_source import open_source
from captioner.jobs.sources.options import SourceOptions
from captioner.jobs.sources.s3_inventory import data_files as inventory_files
from captioner.jobs.sources.source import Source
from captioner.jobs.storage.file_types import COMPANION_SUFFIXES, UNOPENED_SUFFIXES, why_no_image
from captioner.schemas.caption_table import Status
from tests.support.inventories import (
    COLUMNS,
    CURRENT,
    FOLDER,
    FORMATS,
    change,
    delete_marker,
    file_schema,
    version,
    write_inventory,
    write_manifest,
)
from tests.support.photographs import photograph


def records(source: Source) -> list[tuple[str, str | None]]:
    return [tuple(row.values()) for batch in source.batches for row in batch.to_pylist()]


def listed(manifest: str | Path) -> list[tuple[str, str | None]]:
    return records(open_source(manifest))


def keys(manifest: str | Path) -> list[str]:
    return [uri.removeprefix("s3://photos/") for uri, _ in listed(manifest)]


AWKWARD = [
    "plain.jpg",
    "with space.jpg",
    "a+b.jpg",
    "100%.jpg",
    "%20.jpg",
    "date=2026-11-01/1.jpg",
    "café/日本.png",
    "(1), \"2\" & '3'.JPEG",
    "line\nbreak.jpg",
    "/leading//double.webp",
]


@pytest.mark.parametrize("file_format", FORMATS)
def test_the_records_are_the_decoded_keys_and_their_etags(tmp_path: Path, file_format: str) -> None:
    rows = [version(key, f"e{number}") for number, key in enumerate(AWKWARD)]
    manifest = write_inventory(tmp_path, rows, file_format=file_format)
    expected = [(f"s3://photos/{key}", f"e{number}") for number, key in enumerate(AWKWARD)]
    assert listed(manifest) == expected
    assert open_source(manifest).schema.names == ["image_uri", "image_version"]


@pytest.mark.parametrize("file_format", FORMATS)
def test_other_objects_are_counted_by_reason(tmp_path: Path, file_format: str) -> None:
    rows = [
        version("a.jpg", "new"),
        version("a.jpg", "old", is_latest=False),
        delete_marker("b.jpg"),
        version("b.jpg", is_latest=False),
        delete_marker("c.jpg", is_latest=False),
        version("c.jpg"),
        version("folder.jpg/"),
        version(".hidden.jpg"),
        version("x/.cache/y.jpg"),
        version("notes.txt"),
        version("jpg"),
        version("a.jpg.json"),
    ]
    source = open_source(write_inventory(tmp_path, rows, file_format=file_format))
    assert records(source) == [("s3://photos/a.jpg", "new"), ("s3://photos/c.jpg", "e1")]
    assert source.skipped == {
        "delete markers": 2,
        "older versions": 2,
        "folder markers": 1,
        "hidden": 2,
        "without an image's extension": 1,
        "without an image's extension: .txt": 1,
        "without an image's extension: .json": 1,
    }


def test_extensions_are_counted_as_in_a_folder(tmp_path: Path) -> None:
    suffixes = [*UNOPENED_SUFFIXES, *COMPANION_SUFFIXES, ".XML", "", ".", ".é", ".1a", ".xml\n"]
    others = [f"a.png/{number}.b{suffix}" for number, suffix in enumerate(suffixes)]
    others += ["xml", "a.xml/b", "a/b..xml", "é.xml", "a.image-of-a-dog"]
    source = open_source(write_inventory(tmp_path, map(version, ["a.jpg", *others])))
    assert len(records(source)) == 1
    assert source.skipped == Counter(map(why_no_image, others))


def test_only_what_an_inventory_would_list_is_in_its_scope(tmp_path: Path) -> None:
    manifest = write_inventory(tmp_path, [version("a.jpg")])
    inside = ["s3://photos/b.jpg", "s3://photos/b/c.PNG"]
    other = ["s3://photos/b/c", "s3://photos/x.md"]
    outside = ["s3://photos-2/b.jpg", "s3://photos/.b/c.jpg", "s3://photos/b/.c.jpg", "/b.jpg"]
    scope = open_source(manifest).scope
    assert [uri for uri in inside + other + outside if scope(uri)] == inside
    scope = open_source(manifest, SourceOptions(any_extension=True)).scope
    assert [uri for uri in inside + other + outside if scope(uri)] == inside + other


@pytest.mark.parametrize("file_format", FORMATS)
def test_with_any_extension_every_object_is_an_image(tmp_path: Path, file_format: str) -> None:
    rows = [version("0a1b"), delete_marker("c"), version("notes.txt"), version("d/"), version(".e")]
    manifest = write_inventory(tmp_path, rows, file_format=file_format)
    source = open_source(manifest, SourceOptions(any_extension=True))
    assert [uri for uri, _ in records(source)] == ["s3://photos/0a1b", "s3://photos/notes.txt"]
    assert source.skipped == {"delete markers": 1, "folder markers": 1, "hidden": 1}


@pytest.mark.parametrize("file_format", FORMATS)
def test_an_inventory_of_current_versions_has_no_columns_of_versions(
    tmp_path: Path, file_format: str
) -> None:
    manifest = write_inventory(
        tmp_path, [version("a.jpg"), version("b")], file_format=file_format, columns=CURRENT
    )
    assert listed(manifest) == [("s3://photos/a.jpg", "e1")]


@pytest.mark.parametrize("file_format", FORMATS)
def test_without_etags_the_version_is_time_and_size(tmp_path: Path, file_format: str) -> None:
    columns = ["bucket", "key", "size", "last_modified_date"]
    manifest = write_inventory(
        tmp_path, [version("a.jpg")], file_format=file_format, columns=columns
    )
    assert listed(manifest) == [("s3://photos/a.jpg", "2026-09-21T14:13:20.123Z-7")]
    few = write_inventory(
        tmp_path, [version("a.jpg")], file_format=file_format, columns=["bucket", "key", "size"]
    )
    assert listed(few) == [("s3://photos/a.jpg", None)]


def test_columns_may_have_another_order(tmp_path: Path) -> None:
    columns = ["e_tag", "key", "bucket", "is_latest"]
    rows = [version("a b.jpg"), version("a b.jpg", "old", is_latest=False)]
    for file_format in FORMATS:
        manifest = write_inventory(tmp_path, rows, file_format=file_format, columns=columns)
        assert listed(manifest) == [("s3://photos/a b.jpg", "e1")]


@pytest.mark.parametrize("file_format", FORMATS)
def test_data_files_follow_each_other_and_may_be_empty(tmp_path: Path, file_format: str) -> None:
    files = [[version("b.jpg")], [], [version("a.jpg"), version("c.jpg")]]
    manifest = write_inventory(tmp_path, *files, file_format=file_format)
    assert keys(manifest) == ["b.jpg", "a.jpg", "c.jpg"]


@pytest.mark.parametrize("file_format", FORMATS)
def test_a_long_file_comes_in_batches_that_are_the_same_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file_format: str
) -> None:
    names = [f"{number} of 500.jpg" for number in range(500)]
    manifest = write_inventory(tmp_path, [version(n) for n in names], file_format=file_format)
    monkeypatch.setattr(inventory_files, "_CSV_BLOCK", 4096)
    monkeypatch.setattr(inventory_files, "BATCH_ROWS", 50)
    batches = list(open_source(manifest).batches)
    assert len(batches) >= 10
    found = [uri for batch in batches for uri in batch["image_uri"].to_pylist()]
    assert found == [f"s3://photos/{name}" for name in names]


def test_later_files_are_not_opened_before_they_are_needed(tmp_path: Path) -> None:
    manifest = write_inventory(tmp_path, [version("a.jpg")], [version("b.jpg")])
    (tmp_path / "inventories/photos/all/data/1.csv.gz").write_bytes(b"")
    batches = open_source(manifest).batches
    assert next(batches).num_rows == 1
    with pytest.raises(UsageError, match=r"1\.csv\.gz is damaged"):
        next(batches)


# Faults


@pytest.mark.parametrize("file_format", FORMATS)
def test_no_row_of_a_damaged_data_file_is_used(tmp_path: Path, file_format: str) -> None:
    rows = [version(f"{number}.jpg") for number in range(1000)]
    manifest = write_inventory(tmp_path, rows, file_format=file_format)
    (path,) = (tmp_path / "inventories/photos/all/data").iterdir()
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], whole[:-1] + bytes([whole[-1] ^ 1]), b""):
        path.write_bytes(damaged)
        with pytest.raises(UsageError, match=rf"{path.name} is damaged.*copy it again"):
            next(open_source(manifest).batches)


def test_a_data_file_with_the_right_md5_may_still_be_unreadable(tmp_path: Path) -> None:
    manifest = write_inventory(tmp_path, [version("a.jpg")])
    schema = file_schema("Parquet", COLUMNS)
    with pytest.raises(UsageError, match=r"cannot read .*0\.csv\.gz: "):
        listed(change(manifest, fileFormat="Parquet", fileSchema=schema))
    with pytest.raises(UsageError, match=r"cannot read .*0\.csv\.gz.*[Cc]olumns"):
        listed(change(manifest, fileFormat="CSV", fileSchema="Bucket, Key"))


def test_a_manifest_that_does_not_match_its_checksum_is_damaged(tmp_path: Path) -> None:
    manifest = write_inventory(tmp_path, [version("a.jpg")])
    manifest.with_name("manifest.checksum").unlink()
    assert keys(manifest) == ["a.jpg"]
    manifest.with_name("manifest.checksum").write_text("0" * 32 + "\n")
    with pytest.raises(UsageError, match=r"manifest\.json is damaged"):
        open_source(manifest)


def test_orc_is_an_error_that_says_what_to_configure(tmp_path: Path) -> None:
    manifest = write_inventory(tmp_path, [])
    with pytest.raises(UsageError, match=r"ORC.*CSV or Parquet"):
        open_source(change(manifest, fileFormat="ORC", fileSchema="struct<key:string>"))


@pytest.mark.parametrize("file_format", FORMATS)
@pytest.mark.parametrize("missing", ["bucket", "key"])
def test_bucket_and_key_are_needed(tmp_path: Path, file_format: str, missing: str) -> None:
    columns = [name for name in COLUMNS if name != missing]
    manifest = write_inventory(tmp_path, [], file_format=file_format, columns=columns)
    with pytest.raises(UsageError, match=f"no column {missing}; it has: .*e_tag"):
        open_source(manifest)


@pytest.mark.parametrize("text", ['{"images": []}', "[]", '{"fileFormat": "CSV", "files": []}'])
def test_other_json_is_not_an_inventory(tmp_path: Path, text: str) -> None:
    path = tmp_path / "manifest.json"
    path.write_text(text)
    with pytest.raises(UsageError, match="not an S3 Inventory's manifest"):
        open_source(path)
    path.write_text("{")
    with pytest.raises(UsageError, match=r"manifest\.json is not JSON"):
        open_source(path)
    with pytest.raises(UsageError, match="does not exist"):
        open_source(tmp_path / "none.json")


def test_an_inventory_without_images_is_an_error_that_says_so(tmp_path: Path) -> None:
    manifest = write_inventory(tmp_path, [version("a"), version("b")])
    with pytest.raises(UsageError, match=r"no images in .*skipped: 2 without an image's extension"):
        listed(manifest)
    with pytest.raises(UsageError, match=r"no images in the inventory .*\.json: give another"):
        listed(change(manifest, files=[]))


def test_the_folder_of_a_configuration_is_its_newest_inventory(tmp_path: Path) -> None:
    manifest = write_inventory(tmp_path, [version("new.jpg")])
    folder = manifest.parent.parent
    write_manifest(folder / "2026-10-31T01-00Z", {"older": "day"})
    (folder / "2026-11-02T01-00Z").mkdir()  # being written: its manifest comes last
    assert keys(folder) == ["new.jpg"]


# In S3


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """Yield the address of a server with S3's API."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = ["-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", *address],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(port)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()


def wait_for(port: int) -> None:
    for _ in range(600):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except ConnectionRefusedError:
            time.sleep(0.1)
    raise TimeoutError("moto's server does not answer")


@pytest.fixture
def s3(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Yield a client of the server, with buckets `photos` and `inventory`; fsspec uses it, too."""
    login = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
    client = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1", **login)
    for bucket in ("photos", "inventory"):
        client.create_bucket(Bucket=bucket)
    options = {"endpoint_url": endpoint, "key": "test", "secret": "test"}
    monkeypatch.setitem(fsspec.config.conf, "s3", options)
    monkeypatch.setattr("captioner.jobs.storage.attempts.retry.RETRY_DELAYS", ())
    yield client
    for bucket in ("photos", "inventory"):
        for item in client.list_object_versions(Bucket=bucket).get("Versions", []):
            client.delete_object(Bucket=bucket, Key=item["Key"], VersionId=item["VersionId"])
    fsspec.get_filesystem_class("s3").clear_instance_cache()


def upload(s3: Any, root: Path) -> str:
    """Copy a destination bucket from disk; return the URL of its manifest.json."""
    for folder, _, names in os.walk(root):
        for name in names:
            path = Path(folder, name)
            s3.upload_file(str(path), "inventory", path.relative_to(root).as_posix())
    return f"s3://inventory/{FOLDER}/manifest.json"


@pytest.mark.parametrize("file_format", FORMATS)
def test_the_images_of_an_inventory_in_s3_can_be_fetched(
    tmp_path: Path, s3: Any, file_format: str
) -> None:
    names = [name for name in AWKWARD if "\n" not in name]  # which the server does not take
    for number, name in enumerate(names):
        s3.put_object(Bucket="photos", Key=name, Body=photograph(number))
    objects = s3.list_objects_v2(Bucket="photos")["Contents"]
    tags = {item["Key"]: item["ETag"].strip('"') for item in objects}
    rows = [version(name, tags[name]) for name in names]
    write_inventory(tmp_path, rows[:4], rows[4:], file_format=file_format)
    found = listed(upload(s3, tmp_path))
    assert found == [(f"s3://photos/{name}", tags[name]) for name in names]
    assert [fetch(uri, 10**6) for uri, _ in found] == [photograph(n) for n in range(len(names))]


def test_a_configuration_folder_in_s3_is_its_newest_inventory(tmp_path: Path, s3: Any) -> None:
    manifest = write_inventory(tmp_path, [version("new.jpg")])
    write_manifest(manifest.parent.parent / "2026-10-31T01-00Z", {"older": "day"})
    folder = upload(s3, tmp_path).rsplit("/", 2)[0]
    assert keys(folder) == keys(f"{folder}/") == ["new.jpg"]


def test_data_files_that_are_not_beside_a_manifest_on_disk_are_read_from_s3(
    tmp_path: Path, s3: Any
) -> None:
    manifest = write_inventory(tmp_path / "copy", [version("a.jpg")])
    upload(s3, tmp_path / "copy")
    alone = tmp_path / "manifest.json"
    alone.write_bytes(manifest.read_bytes())
    assert keys(alone) == ["a.jpg"]


def test_faults_in_s3_are_errors_that_name_the_file(tmp_path: Path, s3: Any) -> None:
    write_inventory(tmp_path, [version("a.jpg")])
    url = upload(s3, tmp_path)
    data = "inventories/photos/all/data/0.csv.gz"
    s3.put_object(Bucket="inventory", Key=data, Body=b"other")
    with pytest.raises(UsageError, match=rf"s3://inventory/{data} is damaged"):
        listed(url)
    s3.delete_object(Bucket="inventory", Key=data)
    with pytest.raises(UsageError, match=rf"cannot read s3://inventory/{data}"):
        listed(url)
    with pytest.raises(UsageError, match=r"cannot read s3://inventory/none/manifest\.json"):
        listed("s3://inventory/none/manifest.json")


def test_an_archived_object_is_an_image_whose_row_says_why(tmp_path: Path, s3: Any) -> None:
    body = photograph(1)
    s3.put_object(Bucket="photos", Key="old.jpg", Body=body, StorageClass="GLACIER")
    manifest = write_inventory(tmp_path, [version("old.jpg", storage_class="GLACIER")])
    ((uri, _),) = listed(manifest)
    with pytest.raises(FetchError, match="storage class") as denied:
        fetch(uri, 10**6)
    assert denied.value.status is Status.DENIED
