"""The policy that all formats follow, and what tells a person's text from a former export."""

import os
from pathlib import Path

import pytest

from captioner.jobs.errors import TemporaryError, UsageError
from captioner.jobs.publish.export import changes
from captioner.jobs.publish.export.formats import BESIDE, FILES, FORMATS
from captioner.jobs.table.layout import OutFolder
from tests.support.exports import exported, reasons, state
from tests.support.rows import decide, row, write_rows


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    return folder


def table(photos: Path, *names: str, **values: object) -> OutFolder:
    rows = [row(str(photos / f"{name}.jpg"), **values) for name in names]
    return write_rows(photos.parent / "out", rows)


def decided(
    out: OutFolder, photos: Path, name: str, decision: str, text: str | None = None
) -> None:
    decide(out, str(photos / f"{name}.jpg"), decision, text)


def test_only_what_may_be_trusted_is_written(photos: Path) -> None:
    uri = {name: str(photos / f"{name}.jpg") for name in "abcdefgh"}
    out = write_rows(
        photos.parent / "out",
        [
            row(uri["a"]),
            row(uri["b"], needs_review=True),
            row(uri["c"], needs_review=True),
            row(uri["d"]),
            row(uri["e"]),
            row(uri["f"], status="unreadable", caption=None, confidence=None),
            row(uri["g"]),
            row(uri["h"]),
        ],
    )
    decided(out, photos, "c", "accepted", "A picture of c.")
    decided(out, photos, "d", "rejected")
    decided(out, photos, "e", "decorative", "")
    decided(out, photos, "g", "edited", "x" * 126)
    decide(out, uri["h"], "edited", "An old picture.", image_sha256="another")
    assert reasons(out, "txt") == {
        "a": "write",
        "b": "review below the threshold",
        "c": "write",
        "d": "skip rejected",
        "e": "skip decorative",
        "f": "skip failed: unreadable",
        "g": "review longer than 125 characters",
        "h": "review the image has changed since",
    }
    assert {path.name for path in photos.iterdir()} == {"a.txt", "c.txt"}


def test_the_limit_of_characters_can_be_raised(photos: Path) -> None:
    out = table(photos, "a")
    decided(out, photos, "a", "edited", "x" * 126)
    assert exported(out, "txt", max_characters=126) == {"write": 1}


def test_a_persons_text_goes_out_on_one_line(photos: Path) -> None:
    out = table(photos, "a")
    decided(out, photos, "a", "edited", " Two dogs,\r\n\tone\x00\u2028stick.\n")
    exported(out, "txt")
    assert (photos / "a.txt").read_text() == "Two dogs, one stick.\n"


def test_the_second_export_writes_nothing(photos: Path) -> None:
    out = table(photos, "a", "b")
    assert exported(out, "txt") == {"write": 2}
    before = state(photos)
    assert exported(out, "txt") == {"unchanged": 2}
    assert state(photos) == before


def test_a_text_that_a_person_wrote_before_the_export_stays(photos: Path) -> None:
    out = table(photos, "a", "b")
    (photos / "a.txt").write_text("Mine.")
    assert exported(out, "txt") == {"keep": 1, "write": 1}
    assert (photos / "a.txt").read_text() == "Mine."


def test_a_former_export_follows_the_table_until_a_person_changes_it(photos: Path) -> None:
    out = table(photos, "a", "b")
    exported(out, "txt")
    (photos / "b.txt").write_text("Mine.")
    decided(out, photos, "a", "edited", "A dog.")
    decided(out, photos, "b", "edited", "A cat.")
    assert exported(out, "txt") == {"write": 1, "keep": 1}
    assert (photos / "a.txt").read_text() == "A dog.\n"
    assert (photos / "b.txt").read_text() == "Mine."


def test_a_text_that_was_exported_once_is_a_persons_when_it_comes_back(photos: Path) -> None:
    out = table(photos, "a")
    exported(out, "txt")
    first = (photos / "a.txt").read_text()
    decided(out, photos, "a", "edited", "A dog.")
    exported(out, "txt")
    (photos / "a.txt").write_text(first)
    assert exported(out, "txt") == {"keep": 1}


def test_a_persons_text_that_the_table_has_as_well_stays_a_persons(photos: Path) -> None:
    out = table(photos, "a")
    (photos / "a.txt").write_text("A picture of a.\n")
    assert exported(out, "txt") == {"unchanged": 1}
    decided(out, photos, "a", "edited", "A dog.")
    assert exported(out, "txt") == {"keep": 1}


def test_without_its_record_an_export_is_a_persons(photos: Path) -> None:
    out = table(photos, "a")
    exported(out, "txt")
    (out.exports / "txt.sqlite").unlink()
    decided(out, photos, "a", "edited", "A dog.")
    assert exported(out, "txt") == {"keep": 1}


def test_a_text_that_was_removed_is_written_again(photos: Path) -> None:
    out = table(photos, "a")
    exported(out, "txt")
    (photos / "a.txt").unlink()
    assert exported(out, "txt") == {"write": 1}


def test_a_rejected_text_that_is_still_there_is_named(photos: Path) -> None:
    out = table(photos, "a")
    exported(out, "txt")
    decided(out, photos, "a", "rejected")
    assert "still there" in reasons(out, "txt")["a"]


@pytest.mark.parametrize("step", [0, 1])
def test_an_interrupted_export_knows_its_texts(
    photos: Path, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = table(photos, "a", "b")
    exported(out, "txt")
    for name in "ab":
        decided(out, photos, name, "edited", f"Dog {name}.")
    write, done = changes.replace_file, list[Path]()

    def fail_later(path: Path, *arguments: object) -> None:
        if len(done) == step:
            raise KeyboardInterrupt
        done.append(path)
        write(path, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(changes, "replace_file", fail_later)
    with pytest.raises(KeyboardInterrupt):
        exported(out, "txt")
    monkeypatch.setattr(changes, "replace_file", write)
    for name in "ab":
        decided(out, photos, name, "edited", f"Cat {name}.")
    assert exported(out, "txt") == {"write": 2}
    assert (photos / "b.txt").read_text() == "Cat b.\n"


def test_a_file_that_changes_during_the_export_stays(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = table(photos, "a")
    exported(out, "txt")
    decided(out, photos, "a", "edited", "A dog.")
    write = changes.replace_file

    def edit_first(path: Path, *arguments: object) -> None:
        path.write_text("Mine, just now.")
        write(path, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(changes, "replace_file", edit_first)
    with pytest.raises(TemporaryError, match="changed during the export"):
        exported(out, "txt")
    assert [path.name for path in photos.iterdir()] == ["a.txt"]
    assert (photos / "a.txt").read_text() == "Mine, just now."


def test_a_dry_run_writes_nothing_and_says_what_would_change(photos: Path) -> None:
    out = table(photos, "a", "b")
    (photos / "a.txt").write_text("Mine.")
    before = state(photos.parent)
    assert exported(out, "txt", dry_run=True) == {"keep": 1, "write": 1}
    assert state(photos.parent) == before


def test_where_chooses(photos: Path) -> None:
    out = table(photos, "a", "b")
    assert exported(out, "txt", where="image_uri LIKE '%a.jpg'") == {"write": 1}


def test_a_folder_that_cannot_be_written_is_a_usage_error(photos: Path) -> None:
    out = table(photos, "a")
    (photos.parent / "a file").write_text("")
    with pytest.raises(UsageError, match="cannot write to"):
        exported(out, "txt", to=photos.parent / "a file" / "below", root=photos)


@pytest.mark.parametrize(
    ("form", "options", "message"),
    [
        ("pdf", {}, "--format must be one of"),
        ("html", {}, "needs --to FOLDER"),
        ("txt", {"to": "labels"}, "--to and --root belong together"),
        ("txt", {"columns": ["text"]}, "--columns is for csv"),
        ("csv", {"base_url": "https://x.org"}, "belong together"),
        ("csv", {"columns": ["captions"]}, "did you mean caption"),
        ("csv", {"where": "confidense > 1"}, "such as confidence"),
        ("csv", {"max_characters": 0}, "above 0"),
        ("csv", {"index": "x"}, "--index is for opensearch"),
        ("opensearch", {"index": "Captions"}, "lower case"),
        ("hf", {"to": "s3://bucket/x"}, "folder of this machine"),
    ],
)
def test_what_does_not_fit_together_is_refused(
    photos: Path, form: str, options: dict[str, object], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        exported(table(photos, "a"), form, **options)


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_can_be_exported(photos: Path, form: str) -> None:
    out = table(photos, "1")
    (photos / "index.html").write_text("<img src=1.jpg>")
    places = {**dict.fromkeys(FILES, photos / "file"), **dict.fromkeys(BESIDE)}
    result = exported(out, form, to=places.get(form, photos), dry_run=True)
    assert result == {"write": 1}


def test_an_image_whose_name_is_not_utf8_has_its_text(photos: Path) -> None:
    image = photos / os.fsdecode(b"caf\xe9.jpg")
    out = write_rows(photos.parent / "out", [row(image.as_uri())])
    assert exported(out, "txt") == {"write": 1}
    assert exported(out, "txt") == {"unchanged": 1}
    assert [os.fsencode(path.name) for path in photos.iterdir()] == [b"caf\xe9.txt"]
