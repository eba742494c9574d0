"""A manifest on standard input."""

import gc
import io
import tempfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from captioner.jobs.errors import UsageError
from captioner.jobs.sources.manifests.streams import MAX_LINE
from captioner.jobs.sources.open_source import open_source
from captioner.jobs.sources.options import SourceOptions
from captioner.jobs.sources.source import Source
from tests.support.files import read, write_tree

Type = Callable[[str], None]


@pytest.fixture
def type_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Type:
    """Put text on standard input, in the working directory tmp_path."""
    monkeypatch.chdir(tmp_path)

    def type_in(text: str) -> None:
        stdin = SimpleNamespace(buffer=io.BytesIO(text.encode()))
        monkeypatch.setattr("sys.stdin", stdin)

    return type_in


def names(source: Source, folder: Path) -> list[str]:
    return [uri.removeprefix(f"{folder}/") for uri, _ in read(source)]


@pytest.mark.parametrize(
    ("text", "column", "labels"),
    [
        ("./a.jpg\n\nb/c.jpg\r\n", None, None),
        ("image_uri,label\na.jpg,x\nb/c.jpg,y\n", None, ["x", "y"]),
        ('\ufefflabel,"URL"\nx,a.jpg\ny,b/c.jpg\n', "URL", ["x", "y"]),
        ("label\timage_uri\nx\ta.jpg\ny\tb/c.jpg\n", None, ["x", "y"]),
        (
            '{"image_uri": "a.jpg", "label": 1}\n{"image_uri": "b/c.jpg", "label": 2}\n',
            *(None, [1, 2]),
        ),
    ],
)
def test_standard_input_is_a_manifest_whose_first_line_says_its_format(
    tmp_path: Path, type_in: Type, text: str, column: str | None, labels: list[object] | None
) -> None:
    write_tree(tmp_path, {"a.jpg": b"x"})
    type_in(text)
    source = open_source("-", SourceOptions(uri_column=column))
    rows = [row for batch in source.batches for row in batch.to_pylist()]
    assert [row["image_uri"] for row in rows] == [f"{tmp_path}/a.jpg", f"{tmp_path}/b/c.jpg"]
    assert [bool(row["image_version"]) for row in rows] == [True, False]
    assert [row.get("label") for row in rows] == (labels or [None, None])
    assert source.scope("/elsewhere.jpg")


def test_nothing_on_standard_input_lists_nothing(tmp_path: Path, type_in: Type) -> None:
    type_in("")
    assert read(open_source("-")) == []


def test_a_folder_with_an_equals_sign_adds_no_column_to_standard_input(
    tmp_path: Path, type_in: Type, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "day=1").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "day=1"))
    (tmp_path / "photos").mkdir()
    type_in("a.jpg\n")
    monkeypatch.chdir(tmp_path / "photos")
    source = open_source("-")
    assert source.schema.names == ["image_uri", "image_version", "image_access"]
    assert names(source, tmp_path / "photos") == ["a.jpg"]


def test_the_copy_of_standard_input_is_removed(
    tmp_path: Path, type_in: Type, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    type_in("a.jpg\n")
    read(open_source("-"))
    assert not list((tmp_path / "temporary").iterdir())
    type_in("ftp://ann:secret@host/a.jpg\n")
    with pytest.raises(UsageError, match="has a password"):
        read(open_source("-"))
    gc.collect()
    assert not list((tmp_path / "temporary").iterdir())


def test_an_error_names_standard_input_and_a_long_line_takes_little_memory(type_in: Type) -> None:
    type_in("image_uri\na.jpg\nftp://ann:secret@host/a.jpg\n")
    with pytest.raises(UsageError, match=r"^standard input: the image_uri in row 2 has a password"):
        read(open_source("-"))
    type_in('{"image_uri": 1}\n')
    with pytest.raises(UsageError, match=r"^standard input: the column image_uri must hold text"):
        read(open_source("-"))
    type_in("x" * 8 * MAX_LINE)
    tracemalloc.start()
    with pytest.raises(UsageError, match=r"^standard input: line 1 is too long"):
        read(open_source("-"))
    assert tracemalloc.get_traced_memory()[1] < 5 * MAX_LINE
    tracemalloc.stop()
