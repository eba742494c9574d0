"""Archives of images and texts, read by the package webdataset."""

import hashlib
import tarfile
from collections.abc import Iterable
from pathlib import Path

import pytest
import webdataset

from captioner.jobs.errors import UsageError
from captioner.jobs.publish.export import webdataset as archives
from captioner.jobs.table.layout import OutFolder
from tests.support.exports import exported, outcomes, reasons, state
from tests.support.photographs import write_photographs
from tests.support.rows import decide, row, write_rows


@pytest.fixture(autouse=True)
def small_archives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "IMAGES", 2)


def table(tmp_path: Path, images: Iterable[Path]) -> OutFolder:
    hashes = {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in images}
    return write_rows(tmp_path / "out", [row(uri, image_sha256=h) for uri, h in hashes.items()])


def photographs(tmp_path: Path) -> list[Path]:
    return sorted(write_photographs(tmp_path / "photos", 5).iterdir())


def samples(folder: Path) -> list[dict[str, object]]:
    urls = [str(path) for path in sorted(folder.glob("*.tar"))]
    return list(webdataset.WebDataset(urls, shardshuffle=False).decode())


def test_webdataset_reads_images_and_texts(tmp_path: Path) -> None:
    photos = photographs(tmp_path)
    out = table(tmp_path, photos)
    decide(out, str(photos[1]), "edited", "A dog — on grass.", image_sha256=None)
    assert exported(out, "webdataset", to=tmp_path / "to") == {"write": 5}
    assert {path.name for path in (tmp_path / "to").iterdir()} == {
        *("000000.tar", "000001.tar", "000002.tar"),
    }
    found = samples(tmp_path / "to")
    assert [sample["__key__"] for sample in found] == [f"{n:09d}" for n in range(5)]
    assert found[1]["txt"] == "A dog — on grass."
    assert found[1]["json"] == {
        "image_uri": str(photos[1]),
        "text": "A dog — on grass.",
        "confidence": 0.5,
        "decision": "edited",
    }
    with tarfile.open(tmp_path / "to" / "000000.tar") as archive:
        member = archive.extractfile("000000001.jpg")
        assert member is not None and member.read() == photos[1].read_bytes()


def test_the_second_export_fetches_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = table(tmp_path, photographs(tmp_path))
    exported(out, "webdataset", to=tmp_path / "to")
    before = state(tmp_path / "to")
    monkeypatch.setattr(archives, "fetch_image", None)
    assert exported(out, "webdataset", to=tmp_path / "to") == {"unchanged": 5}
    assert state(tmp_path / "to") == before


def test_one_rejected_image_changes_one_archive(tmp_path: Path) -> None:
    photos = photographs(tmp_path)
    out = table(tmp_path, photos)
    exported(out, "webdataset", to=tmp_path / "to")
    decide(out, str(photos[2]), "rejected")
    result = exported(out, "webdataset", to=tmp_path / "to")
    assert result == {"unchanged": 3, "write": 1, "skip": 1}
    assert [sample["__key__"][-1] for sample in samples(tmp_path / "to")] == list("0134")


def test_archives_without_images_are_removed_unless_a_person_changed_them(tmp_path: Path) -> None:
    photos = photographs(tmp_path)
    out, to = table(tmp_path, photos), tmp_path / "to"
    exported(out, "webdataset", to=to)
    exported(out, "webdataset", to=to / "below")
    (to / "000002.tar").write_bytes(b"mine")
    where = f"image_uri = '{photos[0]}'"
    exported(out, "webdataset", to=to, where=where)
    assert {path.name for path in to.iterdir()} == {"000000.tar", "000002.tar", "below"}
    assert len(list((to / "below").iterdir())) == 3
    with pytest.raises(UsageError, match="a person may have written it"):
        exported(out, "webdataset", to=to)


def test_an_image_that_cannot_be_had_is_reported_and_tried_again(tmp_path: Path) -> None:
    photos = photographs(tmp_path)
    out, to = table(tmp_path, photos), tmp_path / "to"
    image = photos[0].read_bytes()
    photos[0].unlink()
    photos[1].write_bytes(photos[1].read_bytes() + b"changed")
    found = reasons(out, "webdataset", to=to)
    assert found["000"].startswith("skip not_found")
    assert found["001"] == "review the image has changed since"
    before = state(to)
    assert exported(out, "webdataset", to=to)["skip"] == 1
    assert state(to) == before
    photos[0].write_bytes(image)
    exported(out, "webdataset", to=to)
    assert [sample["__key__"][-1] for sample in samples(to)] == list("0234")


def test_an_archive_stays_while_one_of_its_images_cannot_be_fetched(tmp_path: Path) -> None:
    photos = photographs(tmp_path)
    out, to = table(tmp_path, photos), tmp_path / "to"
    exported(out, "webdataset", to=to)
    before = state(to)
    photos[0].rename(tmp_path / "away.jpg")
    decide(out, str(photos[1]), "edited", "A dog.", image_sha256=None)
    found = outcomes(out, "webdataset", to=to, where=f"image_uri < '{photos[2]}'")
    assert [each.images for each in found if each.verdict.action == "skip"] == [1, 1]
    assert all(each.verdict.reason.endswith("; the earlier archive stays") for each in found[:2])
    assert {name: before[name] for name in state(to)} == {"000000.tar": before["000000.tar"]}
    (tmp_path / "away.jpg").rename(photos[0])
    exported(out, "webdataset", to=to)
    assert samples(to)[1]["txt"] == "A dog."


def test_no_archive_is_emptied_while_its_source_is_away(tmp_path: Path) -> None:
    photos = photographs(tmp_path)
    out, to = table(tmp_path, photos), tmp_path / "to"
    exported(out, "webdataset", to=to)
    before = state(to)
    decide(out, str(photos[4]), "edited", "A dog.", image_sha256=None)
    (tmp_path / "photos").rename(tmp_path / "away")
    assert exported(out, "webdataset", to=to) == {"unchanged": 4, "skip": 1}
    assert exported(out, "webdataset", to=tmp_path / "new") == {"skip": 5}
    assert state(to) == before
    assert not list((tmp_path / "new").iterdir())


def test_texts_change_beside_an_image_that_no_archive_ever_had(tmp_path: Path) -> None:
    photos = photographs(tmp_path)
    out, to = table(tmp_path, photos), tmp_path / "to"
    photos[0].unlink()
    exported(out, "webdataset", to=to)
    decide(out, str(photos[1]), "edited", "A dog.", image_sha256=None)
    assert exported(out, "webdataset", to=to) == {"unchanged": 3, "skip": 1, "write": 1}
    assert samples(to)[0]["txt"] == "A dog."


def test_a_dry_run_fetches_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = table(tmp_path, photographs(tmp_path))
    monkeypatch.setattr(archives, "fetch_image", None)
    assert exported(out, "webdataset", to=tmp_path / "to", dry_run=True) == {"write": 5}
    assert not (tmp_path / "to").exists()
