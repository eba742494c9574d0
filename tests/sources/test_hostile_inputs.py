"""Archives that climb out of a folder, damage, and small files that would grow to gigabytes."""

import re
import zipfile
from pathlib import Path

import fsspec
import pytest

from captioner.jobs.errors import UsageError
from captioner.jobs.sources.open_source import open_source
from captioner.jobs.sources.several import open_sources
from tests.support.files import read, write_tar
from tests.support.hostile_inputs import write_hostile
from tests.support.measured import measure

OUTSIDE = {"names in archives with ..": 3, "absolute names in archives": 2}


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_members_that_lie_outside_of_an_archive_are_counted(tmp_path: Path, kind: str) -> None:
    source = open_source(write_hostile(tmp_path, f"unsafe-names.{kind}"))
    ((uri, _),) = read(source)
    assert uri == f"{kind}://ok.jpg::{tmp_path}/unsafe-names.{kind}"
    assert source.skipped == OUTSIDE
    with pytest.raises(UsageError, match=r"no images in .*skipped: 3 names in archives with \.\."):
        open_source(write_hostile(tmp_path, f"only-unsafe-names.{kind}"))
    nul = write_hostile(tmp_path, f"nul-in-name.{kind}")
    with pytest.raises(UsageError, match="names in archives with a null character"):
        open_source(nul)


def test_links_devices_and_encrypted_members_are_counted(tmp_path: Path) -> None:
    links = open_source(write_hostile(tmp_path, "link.zip"))
    assert (len(read(links)), links.skipped) == (1, {"links in archives": 1})
    devices = open_source(write_hostile(tmp_path, "links-and-devices.tar"))
    assert len(read(devices)) == 1
    assert devices.skipped == {"links in archives": 2, "devices in archives": 2}
    with pytest.raises(UsageError, match=r"no images in .*skipped: 1 encrypted members"):
        open_source(write_hostile(tmp_path, "encrypted.zip"))


@pytest.mark.parametrize("name", ["cut.zip", "empty.zip", "random.zip"])
def test_a_damaged_zip_is_an_error_wherever_it_lies(tmp_path: Path, name: str) -> None:
    source = write_hostile(tmp_path, name)
    with pytest.raises(
        UsageError, match=rf"cannot list .*{name}: File is not a zip .*copy it again"
    ):
        open_source(source)
    good = write_tar(tmp_path / "good.tar", {"a.jpg": b"x"})
    with pytest.raises(
        UsageError, match=rf"cannot list .*{name}: File is not a zip .*copy it again"
    ):
        open_sources([str(good), source])
    with fsspec.open(f"memory://{name}", "wb") as file:
        file.write((tmp_path / name).read_bytes())
    with pytest.raises(
        UsageError, match=rf"cannot list .*{name}: File is not a zip .*copy it again"
    ):
        open_source(f"zip://**::memory://{name}")


@pytest.mark.parametrize("url", ["{}", "zip://nested.zip::{}", "memory://nested.zip"])
def test_a_member_without_a_name_is_damage_wherever_the_zip_lies(tmp_path: Path, url: str) -> None:
    write_hostile(tmp_path, "no-name.zip")
    data = (tmp_path / "no-name.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "outer.zip", "w") as outer:
        outer.writestr("nested.zip", data)
    with fsspec.open("memory://nested.zip", "wb") as file:
        file.write(data)
    path = tmp_path / ("outer.zip" if "nested" in url else "no-name.zip")
    with pytest.raises(UsageError, match="zip"):
        open_source("zip://**::" + url.format(path))


@pytest.mark.parametrize("name", ["empty.tar", "empty.tgz", "random.tar", "random.tgz"])
def test_an_archive_without_a_readable_member_is_an_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match=rf"{name}: the archive cannot be read"):
        read(open_source(write_hostile(tmp_path, name)))


@pytest.mark.parametrize("name", ["many-digits.tar", "records-in-records.tar"])
def test_a_header_that_would_take_hours_is_damage(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="cannot be read beyond byte 0: a header has a"):
        open_source(write_hostile(tmp_path, name))


ENDS = {
    "empty.tar": "it ends early",
    "random.tar": "a header is damaged: invalid header",
    "many-headers.tar": "a member has too many headers",
}


@pytest.mark.parametrize("name", ENDS)
def test_a_damaged_tar_says_what_is_wrong_with_it(tmp_path: Path, name: str) -> None:
    source = write_hostile(tmp_path, name)
    with pytest.raises(UsageError, match=f"cannot be read beyond byte 0: {ENDS[name]}"):
        open_source(source)
    with pytest.raises(UsageError, match=f"cannot list .*: {ENDS[name]}"):
        open_source(f"tar://**::{source}")


BOMBS = {
    "bomb-pax.tgz": "a header has more than 1048576 bytes",
    "bomb-global.tgz": "a header has more than 1048576 bytes",
    "bomb-sparse.tgz": "a header has more than 1048576 bytes",
    "bomb-header.csv.gz": "the row in line 1 has .* or more",
    "bomb-commas.csv.gz": "the row in line 2 has .* or more",
    "bomb-line.jsonl.gz": "line 1 is too long",
    "bomb-uri.parquet": "has 1048576 characters, and the limit is 16384",
    "bomb-lists.parquet": "row 1 has 5.* bytes, and the limit is 4194304",
    "bomb-value.parquet": "to caption",
}


@pytest.mark.slow
def test_small_files_that_grow_are_refused_in_bounded_memory(tmp_path: Path) -> None:
    sources = [write_hostile(tmp_path, name) for name in BOMBS]
    by_glob = [f"tar://**::{tmp_path / name}" for name in BOMBS if name.endswith(".tgz")]
    names = [*BOMBS, *(Path(source).name for source in by_glob)]
    for name, measured in zip(names, measure(sources + by_glob), strict=True):
        assert measured.code in (0, 2) and measured.peak < 1024, (name, measured)
        assert re.search(BOMBS[name], measured.message), measured
