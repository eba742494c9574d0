"""A list that chooses images of a source."""

import io
from pathlib import Path
from types import SimpleNamespace

import pytest

from captioner.jobs.errors import UsageError
from captioner.jobs.sources.chosen import NOT_IN_SOURCE, chosen_images
from captioner.jobs.sources.open_source import open_source
from captioner.jobs.sources.source import Source
from tests.support.files import read, write_tree


def names(source: Source, folder: Path) -> list[str]:
    return [uri.removeprefix(f"{folder}/") for uri, _ in read(source)]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_tree(tmp_path / "photos", dict.fromkeys(["a.jpg", "b.jpg", "c/d.jpg"], b"x"))


def test_a_list_chooses_images_of_a_source(tmp_path: Path, photos: Path) -> None:
    (tmp_path / "list").write_text(f"photos/c/d.jpg\n\n{photos}/a.jpg\r\nphotos/a.jpg\nx.jpg\n")
    source = chosen_images(open_source(photos), str(tmp_path / "list"))
    assert names(source, photos) == ["a.jpg", "c/d.jpg"]
    assert source.skipped == {NOT_IN_SOURCE: 1}
    assert not source.scope(f"{photos}/gone.jpg")


def test_the_list_may_be_on_standard_input(
    tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(b"./photos/b.jpg\n")))
    assert names(chosen_images(open_source(photos), "-"), photos) == ["b.jpg"]


def test_a_list_without_an_image_of_the_source_is_refused(tmp_path: Path, photos: Path) -> None:
    (tmp_path / "list").write_text("x.jpg\ny.jpg\n")
    with pytest.raises(UsageError, match=r"does not have any of the 2 images that .*/list names"):
        read(chosen_images(open_source(photos), str(tmp_path / "list")))
    (tmp_path / "list").write_text("x.jpg\n")
    with pytest.raises(UsageError, match=r"does not have the only image that .*/list names"):
        read(chosen_images(open_source(photos), str(tmp_path / "list")))
    (tmp_path / "list").write_text("\n")
    with pytest.raises(UsageError, match="names no image"):
        chosen_images(open_source(photos), str(tmp_path / "list"))
    with pytest.raises(UsageError, match=r"cannot read .*none: .*No such file"):
        chosen_images(open_source(photos), str(tmp_path / "none"))


def test_the_list_may_be_the_one_that_is_the_source(tmp_path: Path) -> None:
    lines = "https://h/a.jpg?X-Amz-Signature=abc\n https://h/b.jpg \n"
    (tmp_path / "list.txt").write_text(lines)
    source = chosen_images(open_source(tmp_path / "list.txt"), str(tmp_path / "list.txt"))
    assert [uri for uri, _ in read(source)] == ["https://h/a.jpg", "https://h/b.jpg"]
