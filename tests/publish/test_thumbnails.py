"""Thumbnails, made from any kind of source."""

import io
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from captioner.jobs.errors import FetchError
from captioner.jobs.publish.thumbnails import thumbnail
from captioner.schemas.caption_table import Status
from tests.support.photographs import photograph
from tests.support.servers import S3Server


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def large_photograph() -> bytes:
    """Return a JPEG of 800 x 400 pixels that is displayed upright, 400 x 800, and has EXIF data."""
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a secret place"
    file = io.BytesIO()
    opened(photograph(1)).resize((800, 400)).save(file, "JPEG", exif=exif)
    return file.getvalue()


def test_a_thumbnail_is_small_upright_and_without_metadata(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(large_photograph())
    made = thumbnail(str(path), 200)
    assert (opened(made).format, opened(made).size) == ("JPEG", (100, 200))
    assert not opened(made).getexif()
    assert b"secret" not in made


def test_a_small_image_is_not_enlarged(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("I;16", (30, 20), 40_000).save(path)
    assert opened(thumbnail(str(path), 200)).size == (30, 20)


def test_members_of_containers_have_thumbnails(tmp_path: Path) -> None:
    data = large_photograph()
    for name in ("a.tar", "a.tgz"):
        with tarfile.open(tmp_path / name, "w:gz" if name == "a.tgz" else "w") as archive:
            entry = tarfile.TarInfo("x/1.jpg")
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
        assert opened(thumbnail(f"tar://x/1.jpg::{tmp_path}/{name}", 100)).size == (50, 100)
    table = pa.table({"image": [b"", data]})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=1)
    assert opened(thumbnail(f"{tmp_path}/a.parquet#row=1", 100)).size == (50, 100)


def test_objects_have_thumbnails(store: S3Server) -> None:
    bucket = store.bucket({"x/1.jpg": large_photograph()})
    assert opened(thumbnail(f"{bucket}/x/1.jpg", 100)).size == (50, 100)


@pytest.mark.parametrize("name", ["missing.jpg", "tar://1.jpg::a.tar", "a.parquet#row=x"])
def test_a_missing_image_has_no_thumbnail(tmp_path: Path, name: str) -> None:
    with pytest.raises(FetchError) as caught:
        thumbnail(name if "::" in name else f"{tmp_path}/{name}", 100)
    assert caught.value.status == Status.NOT_FOUND


def test_what_is_no_image_has_no_thumbnail(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_text("not an image")
    with pytest.raises(FetchError) as caught:
        thumbnail(str(path), 100)
    assert caught.value.status == Status.UNREADABLE
