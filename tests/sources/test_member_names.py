"""Members of archives under any name: the URI of a row opens the image that was captioned."""

import io
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

import fsspec
import pyarrow as pa
import pytest

from captioner.jobs.errors import FetchError, UsageError
from captioner.jobs.fetching.by_uri import fetch_image
from captioner.jobs.fetching.container_reader import ImageReader
from captioner.jobs.sources.open_source import open_source
from captioner.jobs.storage.archives import tar_archive
from captioner.jobs.storage.filesystems import configure
from captioner.jobs.storage.uris import image_uri
from captioner.schemas.image_record import records_of
from tests.support.hostile_inputs import write_hostile

NAMES = (
    *("a.jpg", "./a.jpg", "x/a.jpg", "x//a.jpg", "a.jpg", "a.jpg", "x/./a.jpg", "d/../a.jpg"),
    *("b::c.jpg", "tar://y.jpg", "zip://y.jpg", "y.jpg", "http://host/z.jpg", "C:\\x.jpg"),
    *("per%20.jpg", "#row=1.jpg", "q?x=1.jpg", " sp .jpg", "[g].jpg", "*.jpg", "new\nline.jpg"),
    *("\xff.jpg", "cafe\u0301.jpg", "n" * 5000 + ".jpg", "inner.tar.jpg", "~t.jpg", "/abs.jpg"),
)
MEMBERS = [(name, f"member {number}".encode()) for number, name in enumerate(NAMES)]
NOT_UTF8 = ("bad\udcff.jpg", b"not UTF-8")


def write_tar(path: Path, members: Sequence[tuple[str, bytes]]) -> Path:
    with tarfile.open(path, "w:gz" if path.suffix == ".tgz" else "w") as archive:
        for name, data in members:
            header = tarfile.TarInfo(name)
            header.size = len(data)
            archive.addfile(header, io.BytesIO(data))
    return path


@pytest.fixture
def archive(tmp_path: Path, request: pytest.FixtureRequest) -> str:
    """Return an archive with MEMBERS and, if it is a tar, NOT_UTF8 as SOURCE."""
    configure({})
    start, _, name = request.param.rpartition(" ")
    path = tmp_path / name
    if path.suffix != ".zip":
        write_tar(path, [*MEMBERS, NOT_UTF8])
    else:
        with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(path, "w") as file:
            for member, data in MEMBERS:
                file.writestr(member, data)
    return f"{start}{path}"


SOURCES = [" x.tar", " x.tgz", "tar://**:: x.tar", "tar://**:: x.tgz", "zip://**:: x.zip"]


@pytest.mark.parametrize("archive", SOURCES, indirect=True)
def test_the_uri_of_a_row_opens_what_is_captioned_and_each_member_is_counted(archive: str) -> None:
    source = open_source(archive)
    records = records_of(pa.Table.from_batches(source.batches))
    last = {record.uri: number for number, record in enumerate(records)}  # as the plan has it
    with ImageReader(records, 100) as reader:
        found = {records[n].uri: reader.read(n) for n in range(len(records))}
    assert found == {uri: fetch_image(uri, 100) for uri in last}
    assert len(set(found.values())) == len(last)
    members = len(NAMES) + ("zip" not in archive)
    assert len(records) + sum(source.skipped.values()) == members
    assert "names that no URL can hold" in source.skipped
    options = {"tar": {"compression": "gzip"}} if archive.endswith("tgz") else {}
    for uri in (uri for uri in last if "%FF" not in uri):
        with fsspec.open(uri, **options) as file:
            assert file.read() == found[uri]


@pytest.mark.parametrize("glob", ["", "tar://**::"])
def test_a_name_that_is_not_utf8_is_opened_by_its_percent_encoded_name(
    tmp_path: Path, glob: str
) -> None:
    path = write_tar(tmp_path / "x.tar", [NOT_UTF8])
    (batch,) = open_source(f"{glob}{path}").batches
    assert batch["image_uri"].to_pylist() == [f"tar://bad%FF.jpg::{path}"]
    assert fetch_image(f"tar://bad%FF.jpg::{path}", 100) == b"not UTF-8"


@pytest.mark.parametrize("glob", ["", "tar://**::"])
def test_names_that_look_like_percent_encoded_ones_have_uris_of_their_own(
    tmp_path: Path, glob: str
) -> None:
    configure({})
    literal = [f"{name}.jpg" for name in ("bad%FF", "bad%25FF", "bad%2525FF", "bad%C3%A9")]
    members = [(name, name.encode()) for name in literal]
    for archive in ([NOT_UTF8, *members], [*members[::-1], NOT_UTF8]):
        path = write_tar(tmp_path / f"{archive[0][1][3:5].hex()}.tar", archive)
        records = records_of(pa.Table.from_batches(open_source(f"{glob}{path}").batches))
        with ImageReader(records, 100) as reader:
            found = {record.uri: reader.read(n) for n, record in enumerate(records)}
        assert {*found.values()} == {data for _, data in archive}
        assert found == {uri: fetch_image(uri, 100) for uri in found}
    alone = write_tar(tmp_path / "alone.tar", members[:1])
    assert fetch_image(f"tar://bad%FF.jpg::{alone}", 100) == b"bad%FF.jpg"  # as a list has it


@pytest.mark.parametrize(
    ("uri", "why"),
    [
        *(
            (f"{kind}://a.jpg{end}", "names no archive")
            for kind in ("tar", "zip")
            for end in ("", "::")
        ),
        ("tar://", "names no archive"),
        ("tar://::{}.tar", "the URI names no member"),
        ("zip://::{}.zip", "the URI names no member"),
        ("tar://b.jpg::{}.tar", r"the archive has no file b\.jpg"),
        ("zip://b.jpg::{}.zip", r"the archive has no file b\.jpg"),
    ],
)
def test_a_uri_that_names_no_member_or_no_archive_says_so(
    tmp_path: Path, uri: str, why: str
) -> None:
    configure({})
    write_tar(tmp_path / "x.tar", [("a.jpg", b"x")])
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as file:
        file.writestr("a.jpg", b"x")
    named = image_uri(uri.format(tmp_path / "x"), str(tmp_path))
    with pytest.raises(FetchError, match=why):
        fetch_image(named, 100)
    if "archive" in why and "{" not in uri:
        with pytest.raises(UsageError, match=why):
            open_source(uri)


def test_links_devices_and_sparse_files_are_not_opened_by_their_uri(tmp_path: Path) -> None:
    configure({})
    source = write_hostile(tmp_path, "links-and-devices.tar")
    listing = open_source(f"tar://**::{source}")
    assert sum(batch.num_rows for batch in listing.batches) == 1
    assert listing.skipped == {"links in archives": 2, "devices in archives": 2}
    for name, reason in (("LNKTYPE", "a link"), ("FIFOTYPE", "a device"), ("none", "none.jpg")):
        with pytest.raises(FetchError, match=reason):
            fetch_image(f"tar://{name}.jpg::{source}", 100)


def test_members_before_damage_are_opened_but_a_glob_over_damage_is_refused(
    tmp_path: Path,
) -> None:
    configure({})
    source = write_hostile(tmp_path, "cut.tar")
    assert fetch_image(f"tar://1.jpg::{source}", 1000) == b"x" * 1000
    for name, damage in (("2", "unexpected end of data"), ("3", "cannot be read to its end")):
        with pytest.raises(FetchError, match=damage):
            fetch_image(f"tar://{name}.jpg::{source}", 1000)
    with pytest.raises(UsageError, match=r"cannot list .*cut\.tar: .* cannot be read to its end"):
        open_source(f"tar://**::{source}")


def test_an_index_that_would_take_too_much_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure({})
    path = write_tar(tmp_path / "x.tar", MEMBERS)
    monkeypatch.setattr(tar_archive, "MAX_INDEX", 5000)
    with pytest.raises(UsageError, match=r"index of .*x\.tar .* memory: divide the archive"):
        open_source(f"tar://**::{path}")
    with pytest.raises(FetchError, match="divide the archive"):
        fetch_image(f"tar://a.jpg::{path}", 100)
