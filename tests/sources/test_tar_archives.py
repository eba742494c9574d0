"""Tar archives as other tools write them, whole and damaged: what is listed."""

import errno
import gzip
import io
import json
import os
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pytest
import webdataset
from fsspec.implementations.memory import MemoryFileSystem

from captioner.jobs.errors import FetchError, TemporaryError, UsageError
from captioner.jobs.fetching.by_uri import fetch_image
from captioner.jobs.fetching.container_reader import ImageReader
from captioner.jobs.sources.archives import tar_archives as archives_module
from captioner.jobs.sources.open_source import open_source
from captioner.jobs.storage import containers
from captioner.jobs.storage.filesystems import configure
from captioner.schemas.image_record import records_of
from tests.support.photographs import photograph

PHOTOS = [photograph(number) for number in range(4)]


def rows(source: Path | str) -> list[dict[str, Any]]:
    return [row for batch in open_source(source).batches for row in batch.to_pylist()]


def names(source: Path | str) -> list[str]:
    """Return the names of the members listed."""
    uris = [row["image_uri"] for row in rows(source)]
    return [uri.removeprefix("tar://").partition("::")[0] for uri in uris]


def with_tar_writer(path: Path) -> None:
    with webdataset.TarWriter(str(path)) as writer:
        for number, photo in enumerate(PHOTOS):
            sample = {"__key__": f"a/{number:03d}", "jpg": photo, "json": {"number": number}}
            writer.write(sample | {"cls": number})


def with_tarfile(path: Path, files: dict[str, bytes], mode: str = "w", **options: Any) -> Path:
    with tarfile.open(path, mode, **options) as tar:
        for name, data in files.items():
            header = tarfile.TarInfo(name)
            header.size = len(data)
            tar.addfile(header, io.BytesIO(data))
    return path


def with_tar_command(path: Path, *options: str) -> None:
    folder = path.parent / f"{path.name} folder"
    for number, photo in enumerate(PHOTOS):
        (folder / "a").mkdir(parents=True, exist_ok=True)
        (folder / f"a/{number:03d}.jpg").write_bytes(photo)
        (folder / f"a/{number:03d}.json").write_text(json.dumps({"number": number}))
        (folder / f"a/{number:03d}.cls").write_text(str(number))
    subprocess.run(["tar", "-cf", path, "--sort=name", *options, "-C", folder, "a"], check=True)


WRITERS: dict[str, Callable[[Path], object]] = {
    "webdataset.tar": with_tar_writer,
    "webdataset.tar.gz": with_tar_writer,
    "command.tar": with_tar_command,
    "command.tgz": lambda path: with_tar_command(path, "-z"),
    "posix.TAR": lambda path: with_tar_command(path, "--format=posix"),
    "ustar.tar": lambda path: with_tar_command(path, "--format=ustar"),
}


@pytest.mark.parametrize("name", WRITERS)
def test_the_images_of_an_archive_are_listed_with_key_and_sidecar(
    tmp_path: Path, name: str
) -> None:
    WRITERS[name](tmp_path / name)
    source = open_source(tmp_path / name)
    found = [row for batch in source.batches for row in batch.to_pylist()]
    version = (tmp_path / name).stat()
    assert [row["key"] for row in found] == [f"a/{n:03d}" for n in range(4)]
    assert [json.loads(row["json"]) for row in found] == [{"number": n} for n in range(4)]
    assert found[1]["image_uri"] == f"tar://a/001.jpg::{tmp_path / name}"
    assert found[1]["image_version"] == f"{version.st_mtime_ns}-{version.st_size}"
    assert source.skipped == {"without an image's extension: .cls": 4}


@pytest.mark.parametrize("name", ["webdataset.tar", "webdataset.tar.gz", "command.tar"])
def test_the_uri_of_a_member_is_what_fsspec_opens(tmp_path: Path, name: str) -> None:
    WRITERS[name](tmp_path / name)
    for row, photo in zip(rows(tmp_path / name), PHOTOS, strict=True):
        with fsspec.open(row["image_uri"]) as file:
            assert file.read() == photo


def test_keys_and_samples_are_those_of_webdataset(tmp_path: Path) -> None:
    files = ["a.b/1.jpg", "a.b/1.json", "2.left.jpg", "2.json", "2.right.JPG", "./c/3.seg.png"]
    path = with_tarfile(tmp_path / "x.tar", {name: f'"{name}"'.encode() for name in files})
    expected = [
        (sample["__key__"], name)
        for sample in webdataset.WebDataset(str(path), shardshuffle=False, empty_check=False)
        for name in sample
        if name.endswith(("jpg", "png"))
    ]
    found = rows(path)
    assert [row["key"] for row in found] == [key for key, _ in expected]
    assert [row["json"] for row in found] == ['"a.b/1.json"', '"2.json"', '"2.json"', None]


def test_a_sidecar_may_come_before_or_after_its_image(tmp_path: Path) -> None:
    files = {
        "1.json": b"1",
        "1.jpg": b"",
        "2.jpg": b"",
        "2.json": b"2",
        "3.jpg": b"",
        "4.json": b"",
    }
    source = open_source(with_tarfile(tmp_path / "x.tar", files))
    (batch,) = source.batches
    assert batch["json"].to_pylist() == ["1", "2", None]
    assert source.skipped == {"without an image's extension: .json": 1}


def test_a_sidecar_beyond_the_limit_is_counted_and_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives_module, "MAX_JSON", 10)
    path = with_tarfile(tmp_path / "x.tar", {"1.jpg": b"", "1.json": b"x" * 11})
    source = open_source(path)
    assert [batch["json"].to_pylist() for batch in source.batches] == [[None]]
    assert source.skipped == {"sidecars of more than 10 bytes": 1}


def test_hidden_files_links_and_other_files_are_skipped_and_counted(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    (folder / ".cache").mkdir(parents=True)
    for name in ("1.jpg", "._1.jpg", ".cache/2.jpg", "notes.txt", "README"):
        (folder / name).write_bytes(b"x")
    (folder / "3.jpg").symlink_to("1.jpg")
    os.link(folder / "1.jpg", folder / "4.jpg")
    os.mkfifo(folder / "pipe.jpg")
    subprocess.run(["tar", "-cf", tmp_path / "x.tar", "-C", folder, "."], check=True)
    source = open_source(tmp_path / "x.tar")
    assert sum(batch.num_rows for batch in source.batches) == 1
    assert source.skipped == {
        "hidden": 1,
        "excluded by ._*": 1,
        "links in archives": 2,
        "devices in archives": 1,
        "without an image's extension: .txt": 1,
        "without an image's extension": 1,
    }


@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_and_names_of_any_characters_are_kept(tmp_path: Path, format: int) -> None:
    files = {f"{'long/' * 50}é 日本 #?%41.jpg": PHOTOS[0], "b.jpg": PHOTOS[1]}
    path = with_tarfile(tmp_path / "x #1.tar", files, format=format)
    assert names(path) == list(files)
    with fsspec.open(rows(path)[0]["image_uri"]) as file:
        assert file.read() == PHOTOS[0]


def test_a_name_that_is_not_utf8_is_percent_encoded(tmp_path: Path) -> None:
    options = {"format": tarfile.GNU_FORMAT, "encoding": "latin-1"}
    path = with_tarfile(tmp_path / "x.tar", {"a/\xff.jpg": b""}, **options)
    (row,) = rows(path)
    assert (row["image_uri"], row["key"]) == (f"tar://a/%FF.jpg::{path}", "a/%FF")


def test_a_sparse_file_is_an_image_that_says_what_to_do(tmp_path: Path) -> None:
    with (tmp_path / "1.jpg").open("wb") as file:
        file.truncate(2**20)
        file.seek(2**19)
        file.write(b"x")
    subprocess.run(["tar", "-Scf", "x.tar", "1.jpg"], cwd=tmp_path, check=True)
    (row,) = rows(tmp_path / "x.tar")
    assert "--sparse" in row["image_member"]["error"]


def test_an_empty_archive_has_no_images(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no images in .*x\.tar"):
        open_source(with_tarfile(tmp_path / "x.tar", {}))
    with pytest.raises(UsageError, match=r"no images in .*\(skipped: 1 without .*: .txt\)"):
        open_source(with_tarfile(tmp_path / "x.tar", {"notes.txt": b""}))


def test_a_long_listing_comes_in_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives_module, "BATCH_ROWS", 3)
    with_tar_writer(tmp_path / "x.tar")
    assert [batch.num_rows for batch in open_source(tmp_path / "x.tar").batches] == [3, 1]


# Several archives


def test_shards_are_read_by_folder_and_by_glob_in_the_order_of_their_names(tmp_path: Path) -> None:
    with webdataset.ShardWriter(f"{tmp_path}/%04d.tar", maxcount=3, verbose=0) as writer:
        for number in range(8):
            writer.write({"__key__": str(number), "jpg": b""})
    expected = [f"{number}.jpg" for number in range(8)]
    assert names(tmp_path) == names(f"{tmp_path}/*.tar") == names(f"{tmp_path}/000?.*") == expected
    (tmp_path / "b").mkdir()
    (tmp_path / "0000.tar").rename(tmp_path / "b" / "0000.tar")
    assert names(tmp_path) == expected[3:] + expected[:3]


def test_manifests_beside_archives_and_archives_beside_images_are_skipped(tmp_path: Path) -> None:
    with_tar_writer(tmp_path / "00000.tar")
    for name in ("00000.csv", "00000_stats.json", "README.txt"):
        (tmp_path / name).touch()
    source = open_source(tmp_path)
    assert sum(batch.num_rows for batch in source.batches) == 4
    assert source.skipped == {
        "manifests": 1,
        "without an image's extension: .json": 1,
        "without an image's extension: .txt": 1,
        "without an image's extension: .cls": 4,
    }
    (tmp_path / "z.jpg").touch()
    source = open_source(tmp_path)
    assert [batch["image_uri"].to_pylist() for batch in source.batches] == [
        [str(tmp_path / "z.jpg")]
    ]
    assert source.skipped["archives beside images"] == 1


# Damage


def cut(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


def headers(path: Path) -> list[tarfile.TarInfo]:
    with tarfile.open(path) as tar:
        return tar.getmembers()


def within_a_member(path: Path) -> None:
    cut(path, headers(path)[2].offset_data + 100)


def between_members(path: Path) -> None:
    cut(path, headers(path)[3].offset)


def between_the_headers_of_a_member(path: Path) -> None:
    with_tarfile(path, dict.fromkeys(("0.jpg", "1.jpg", "2.jpg", "é.jpg"), PHOTOS[0]))
    cut(path, headers(path)[3].offset_data - tarfile.BLOCKSIZE)


def within_a_header(path: Path) -> None:
    cut(path, headers(path)[3].offset + 100)


def with_an_overwritten_header(path: Path) -> None:
    data = bytearray(path.read_bytes())
    start = headers(path)[3].offset
    data[start : start + 512] = b"x" * 512
    path.write_bytes(data)


@pytest.mark.parametrize(
    "damage",
    [
        *(within_a_member, within_a_header, between_the_headers_of_a_member),
        with_an_overwritten_header,
    ],
)
def test_a_damaged_archive_gives_the_images_before_the_damage_and_an_error_row(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    path = with_tarfile(tmp_path / "a.tar", {f"{n}.jpg": PHOTOS[n] for n in range(4)})
    damage(path)
    with_tar_writer(tmp_path / "b.tar")
    found = rows(tmp_path)
    assert [row["image_uri"].partition("::")[0] for row in found[:3]] == [
        f"tar://{n}.jpg" for n in range(3)
    ]
    assert found[3]["image_uri"] == str(path) and found[3]["key"] is None
    assert "the archive cannot be read beyond byte" in found[3]["image_member"]["error"]
    assert len(found[4:]) == 4


def test_an_archive_without_an_end_marker_gives_its_images_and_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = with_tarfile(tmp_path / "1.tar", {f"{n}.jpg": PHOTOS[n] for n in range(4)})
    between_members(path)
    (tmp_path / "2.tar").write_bytes(path.read_bytes())
    packed = tmp_path / "3.tar.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    for source in (path, packed, f"tar://**::{path}", f"tar://**::{packed}"):
        caplog.clear()
        assert names(source) == ["0.jpg", "1.jpg", "2.jpg"]
        (warning,) = caplog.messages
        assert " has no end marker" in warning
    caplog.clear()
    every = open_source(tmp_path)
    assert sum(batch.num_rows for batch in every.batches) == 9
    assert caplog.messages[0].startswith(f"{path} and 2 other archives have no end marker")
    assert not every.scope(f"tar://3.jpg::{path}")  # it has not vanished, but ...
    assert every.scope(str(path))  # ... a row about damage has
    with pytest.raises(FetchError, match=r"the archive has no file 3\.jpg") as caught:
        fetch_image(f"tar://3.jpg::{path}", 100)
    assert caught.value.status == "not_found"


@pytest.mark.parametrize(
    ("suffix", "codec", "name"),
    [("", "gzip", "gzip"), (".zst", "zstd", "zstd"), (".x", "bz2", "bz")],
)
def test_an_archive_that_is_compressed_in_another_way_says_what_to_do(
    tmp_path: Path, suffix: str, codec: str, name: str
) -> None:
    configure({})
    plain = with_tarfile(tmp_path / "plain", {"1.jpg": PHOTOS[0]})
    path = tmp_path / f"x.tar{suffix}"
    with pa.CompressedOutputStream(str(path), codec) as packed:
        packed.write(plain.read_bytes())
    with pytest.raises(FetchError, match=f"it is compressed by {name}.*: unpack it, or make"):
        fetch_image(f"tar://1.jpg::{path}", 10**6)
    with pytest.raises(UsageError, match="unpack it, or" if suffix != ".x" else "neither"):
        open_source(path)


@pytest.mark.parametrize("kept", [0.2, 0.6, 0.99])
def test_the_images_before_the_damage_of_a_truncated_gzip_archive_are_listed(
    tmp_path: Path, kept: float
) -> None:
    path = tmp_path / "x.tar.gz"
    with_tarfile(path, {f"{n:02d}.jpg": os.urandom(20_000) for n in range(50)}, "w:gz")
    cut(path, int(path.stat().st_size * kept))
    *images, damage = rows(path)
    assert len(images) == pytest.approx(50 * kept, abs=2)
    assert damage["image_uri"] == str(path)
    assert "ended before the end-of-stream marker" in damage["image_member"]["error"]


def test_damage_that_only_the_gzip_checksum_reveals_is_reported(tmp_path: Path) -> None:
    plain = with_tarfile(tmp_path / "x.tar", {"1.jpg": os.urandom(9000)})
    data = bytearray(gzip.compress(plain.read_bytes(), compresslevel=0))
    data[5000] ^= 255
    path = tmp_path / "x.tar.gz"
    path.write_bytes(data)
    image, damage = rows(path)
    assert image["key"] == "1" and "CRC check failed" in damage["image_member"]["error"]


def test_archives_joined_by_cat_are_reported(tmp_path: Path) -> None:
    for name in ("1", "2"):
        with_tarfile(tmp_path / name, {f"{name}.jpg": b""})
    joined = tmp_path / "x.tar"
    joined.write_bytes((tmp_path / "1").read_bytes() + (tmp_path / "2").read_bytes())
    image, damage = rows(joined)
    assert image["key"] == "1" and "another archive follows" in damage["image_member"]["error"]


def test_an_unreadable_archive_does_not_stop_the_others(tmp_path: Path) -> None:
    with_tar_writer(tmp_path / "b.tar")
    (tmp_path / "a.tar").write_bytes(b"no archive" * 1000)
    (tmp_path / "c.tgz").write_bytes((tmp_path / "b.tar").read_bytes())
    (tmp_path / "d.tar").symlink_to("nowhere")
    os.mkfifo(tmp_path / "e.tar")
    found = {row["image_uri"]: row["image_member"]["error"] for row in rows(tmp_path)}
    assert len(found) == 8
    assert "header" in found[f"{tmp_path}/a.tar"] and "gzip" in found[f"{tmp_path}/c.tgz"]
    assert found[f"{tmp_path}/d.tar"] is found[f"{tmp_path}/e.tar"] is None  # to be tried
    for name in ("a.tar", "c.tgz"):
        with pytest.raises(UsageError, match=rf"{name}: the archive cannot be read"):
            open_source(tmp_path / name)


def test_an_archive_that_cannot_be_opened_has_the_status_of_the_cause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_tarfile(tmp_path / "a.tar", {"1.jpg": PHOTOS[0]})
    with_tar_writer(tmp_path / "denied.tar")
    with_tar_writer(tmp_path / "broken.tar")
    (tmp_path / "gone.tar").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe.tar")
    open_container = containers.open_container
    faults = {"denied.tar": PermissionError(errno.EACCES, "Permission denied")}
    faults["broken.tar"] = OSError(errno.EIO, "Input/output error")  # type: ignore[assignment]

    def opened(container: str) -> Any:
        if fault := faults.get(Path(container).name):
            raise fault
        return open_container(container)

    monkeypatch.setattr(containers, "open_container", opened)
    source = open_source(tmp_path)
    records = records_of(pa.Table.from_batches(source.batches))
    found = {}
    with ImageReader(records, 10**6) as reader:
        for number, record in enumerate(records):
            try:
                found[record.uri.rpartition("/")[2]] = str(len(reader.read(number)))
            except FetchError as error:
                found[record.uri.rpartition("/")[2]] = f"{error.status}: {error}"
    assert found == {
        "a.tar": str(len(PHOTOS[0])),
        "broken.tar": "fetch_failed: Input/output error",
        "denied.tar": "denied: Permission denied",
        "gone.tar": "not_found: No such file or directory",
        "pipe.tar": "fetch_failed: not a regular file",
    }
    for name in ("denied", "gone"):
        assert not source.scope(f"tar://1.jpg::{tmp_path}/{name}.tar")
    with pytest.raises(UsageError, match=r"denied\.tar: the archive cannot be opened: Permission"):
        open_source(tmp_path / "denied.tar")


@pytest.mark.parametrize("method", ["info", "open"])
def test_a_transient_fault_of_a_remote_archive_stops_the_listing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    with_tar_writer(tmp_path / "x.tar")
    for name in ("a.tar", "b.tar"):
        with fsspec.open(f"memory://faults/{name}", "wb") as file:
            file.write((tmp_path / "x.tar").read_bytes())
    working = getattr(MemoryFileSystem, method)
    faults: list[Exception] = [OSError(errno.EIO, "Slow down"), PermissionError("Forbidden")]

    def failing(fs: MemoryFileSystem, path: str, *arguments: Any, **options: Any) -> Any:
        if path.endswith("b.tar"):
            raise faults[0]
        return working(fs, path, *arguments, **options)

    monkeypatch.setattr("captioner.jobs.storage.attempts.retry.RETRY_DELAYS", ())
    monkeypatch.setattr("captioner.jobs.storage.attempts.retry.FETCH_SECONDS", 0)
    monkeypatch.setattr(MemoryFileSystem, method, failing)
    with pytest.raises(TemporaryError, match=r"cannot read memory://faults/b\.tar: Slow down"):
        rows("memory://faults")
    del faults[0]
    *members, archive = rows("memory://faults")
    assert len(members) == 4
    assert archive["image_uri"] == "memory://faults/b.tar"
    assert archive["image_member"]["error"] is None


def test_all_members_with_the_same_name_are_listed(
    tmp_path: Path,
) -> None:
    with_tarfile(tmp_path / "x.tar", {"1.jpg": b"1"})
    with_tarfile(tmp_path / "x.tar", {"1.jpg": b"22"}, "a")
    found = rows(tmp_path / "x.tar")
    assert [row["image_member"]["size"] for row in found] == [1, 2]
    assert len({row["image_uri"] for row in found}) == 1


# Archives elsewhere


def test_a_remote_archive_is_listed_by_its_url(tmp_path: Path) -> None:
    with_tar_writer(tmp_path / "x.tar.gz")
    url = "memory://bucket/x.tar.gz"
    with fsspec.open(url, "wb") as file:
        file.write((tmp_path / "x.tar.gz").read_bytes())
    found = rows(url)
    assert found[0]["image_uri"] == f"tar://a/000.jpg::{url}"
    assert found[0]["image_version"]
    with pytest.raises(UsageError, match=r"bucket/none\.tar does not exist"):
        open_source("memory://bucket/none.tar")
