"""Zip archives as sources, and how much of their index may be in memory."""

import struct
import zipfile
from pathlib import Path

import pytest

from captioner.jobs.errors import FetchError, UsageError
from captioner.jobs.fetching.fetch import fetch
from captioner.jobs.sources.open_source import open_source
from captioner.jobs.storage.archives import zip_archive
from captioner.jobs.storage.filesystems import configure, filesystem
from tests.support.files import read, uris, write_memory, write_zip

FILES = {
    "a/2.jpg": b"two",
    "a/1.jpg": b"one",
    "a/b/3.jpg": b"three",
    "notes.md": b"",
    "4.jpg": b"4",
}


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("zip://", ["4.jpg", "a/1.jpg", "a/2.jpg", "a/b/3.jpg"]),
        ("zip://a", ["a/1.jpg", "a/2.jpg", "a/b/3.jpg"]),
        ("zip://a/", ["a/1.jpg", "a/2.jpg", "a/b/3.jpg"]),
        ("zip://a/*", ["a/1.jpg", "a/2.jpg"]),
        ("zip://a/2.jpg", ["a/2.jpg"]),
    ],
)
def test_the_images_of_a_zip_archive_are_listed_and_fetched(
    tmp_path: Path, source: str, found: list[str]
) -> None:
    configure({})
    archive = write_zip(tmp_path / "x.zip", FILES)
    listed = read(open_source(f"{source}::{archive}"))
    assert [uri for uri, _ in listed] == [f"zip://{name}::{archive}" for name in found]
    assert all(version for _, version in listed)
    assert [fetch(uri, 100) for uri, _ in listed] == [FILES[name] for name in found]
    with pytest.raises(UsageError, match="zip://none::"):
        open_source(f"zip://none::{archive}")


def test_a_member_whose_name_begins_with_the_folder_itself_is_listed(tmp_path: Path) -> None:
    configure({})
    files = {"./1.jpg": b"one", "./a/2.jpg": b"two", "./.3.jpg": b"hidden"}
    archive = write_zip(tmp_path / "x.zip", files)
    listed = read(open_source(f"zip://**::{archive}"))
    assert [fetch(uri, 100) for uri, _ in listed] == [b"one", b"two"]


def test_the_index_of_a_zip_archive_is_in_memory_only_once(tmp_path: Path) -> None:
    configure({})
    archive = write_zip(tmp_path / "x.zip", {**FILES, "../out.jpg": b"x"})
    source = open_source(f"zip://**::{archive}")
    assert len(read(source)) == 4
    assert source.skipped == {
        "names in archives with ..": 1,
        "without an image's extension: .md": 1,
    }
    assert fetch(f"zip://4.jpg::{archive}", 100) == b"4"
    fs, _ = filesystem(f"zip://4.jpg::{archive}")
    assert fs.dir_cache is None  # the copy that fsspec makes


@pytest.mark.parametrize(("says_utf8", "found"), [(False, "\xe9\xa0\xc7\u0398.jpg"), (True, None)])
def test_names_that_are_not_utf8_are_those_of_msdos_or_damage(
    tmp_path: Path, says_utf8: bool, found: str | None
) -> None:
    configure({})
    archive = write_zip(tmp_path / "x.zip", {"XXXX.jpg": b"x"})
    data = bytearray(archive.read_bytes())
    for signature, flags in ((b"PK\x03\x04", 7), (b"PK\x01\x02", 9)):
        data[data.index(signature) + flags] |= 8 * says_utf8
    archive.write_bytes(bytes(data).replace(b"XXXX", b"\x82\xff\x80\xe9"))
    if found:
        assert uris(f"zip://**::{archive}") == [f"zip://{found}::{archive}"]
        assert fetch(f"zip://{found}::{archive}", 100) == b"x"
    else:
        with pytest.raises(UsageError, match="name of a member is not UTF-8"):
            open_source(f"zip://**::{archive}")


def with_zip64_records(data: bytes) -> bytes:
    """Return an archive whose records at the end have 64 bits."""
    end = data.rfind(b"PK\5\6")
    count, size, start = struct.unpack_from("<HII", data, end + 10)
    record = struct.pack("<4sQHHIIQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, count, count, size, start)
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, end, 1)
    last = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    return data[:end] + record + locator + last


@pytest.mark.parametrize("is_wide", [False, True])
def test_an_index_that_would_take_too_much_memory_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_wide: bool
) -> None:
    configure({})
    archive = write_zip(tmp_path / "x.zip", FILES)
    if is_wide:
        archive.write_bytes(with_zip64_records(archive.read_bytes()))
    write_memory({"x.zip": archive.read_bytes()})
    assert len(uris(f"zip://**::{archive}")) == 4
    configure({})
    zip_archive.ZipArchive.clear_instance_cache()
    monkeypatch.setattr(zip_archive, "MAX_INDEX", 100)
    monkeypatch.setattr(zipfile, "ZipFile", lambda *_, **__: pytest.fail("it was read"))
    for outer in (str(archive), "memory://x.zip"):
        with pytest.raises(UsageError, match=r"index of .*x.zip has \d+ bytes, and the limit is"):
            open_source(f"zip://**::{outer}")
    with pytest.raises(FetchError, match="divide the archive"):
        fetch(f"zip://4.jpg::{archive}", 100)


def test_the_length_of_an_index_is_read_where_it_will_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure({})
    archive = write_zip(tmp_path / "x.zip", FILES)
    data = bytearray(archive.read_bytes())
    end = data.rfind(b"PK\5\6")
    data[end + 4 : end + 8] = b"PK\5\6"  # the numbers of disks, which nothing reads
    data[end + 16 : end + 20] = bytes(4)  # the offset, which would then be the length
    archive.write_bytes(data)
    monkeypatch.setattr(zip_archive, "MAX_INDEX", 100)
    with pytest.raises(UsageError, match="and the limit is 100"):
        open_source(f"zip://**::{archive}")
