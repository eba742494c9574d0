"""A partition -> rows, with a captioner that costs nothing and without a run's folder."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from captioner.caption import Caption
from captioner.captioner import Captioner, Measure
from captioner.errors import OutOfMemory
from captioner.house_rules import HouseRules
from captioner.image import DecodedImage, decode_image
from captioner.jobs.pipeline.image_loader import Values
from captioner.jobs.pipeline.partition import PartitionCaptioner
from captioner.jobs.pipeline.settings import WorkerSettings
from captioner.jobs.pipeline.stage_times import StageTimes
from captioner.jobs.table.threshold import Threshold
from captioner.options import CaptionerOptions
from captioner.schemas.caption_table import CaptionRow
from captioner.schemas.image_record import ImageRecord
from tests.support.photographs import photograph

SIZE = 3  # images a batch


class FakeCaptioner(Captioner):
    """Captions that say how bright an image is."""

    identity, batch_size = "fake@0", SIZE
    house_rules = HouseRules(language=None)
    settings: Mapping[str, object] = {}

    def __init__(self) -> None:
        self.batches: list[int] = []

    def prepare(self, image: bytes | Image.Image) -> DecodedImage:
        return decode_image(image, 16)

    def answer(self, images: Sequence[DecodedImage], measure: Measure) -> list[Caption]:
        self.batches.append(len(images))
        with measure("encode"):
            bright = [image.pixels.mean() for image in images]
        with measure("search"):
            return [Caption(f"Brightness {each:.3f}.", 0.5, -1.0, (-1.0,), ()) for each in bright]


class Partition:
    """The files of a folder, and the ways in which a test captions them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.captioner = folder, FakeCaptioner()
        self.known: dict[str, Values] = {}
        self.times = StageTimes()
        settings = WorkerSettings(CaptionerOptions(), 20_000, threshold=Threshold(0.6))
        self.partitions = PartitionCaptioner(self.captioner, settings, "run", self.known.get)

    def write(self, contents: Sequence[bytes]) -> list[ImageRecord]:
        names = [self.folder / f"{number:03d}.jpg" for number in range(len(contents))]
        for path, content in zip(names, contents, strict=True):
            path.write_bytes(content)
        return [ImageRecord(str(path), None) for path in names]

    def caption(self, contents: Sequence[bytes]) -> tuple[list[CaptionRow], list[str]]:
        """Caption images; return rows, and the hashes of new captions."""
        images = self.partitions.caption(self.write(contents), self.times)
        return images.rows, list(images.new)


@pytest.fixture
def partition(tmp_path: Path) -> Partition:
    return Partition(tmp_path)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_rows_are_in_the_order_of_the_records_with_all_their_values(partition: Partition) -> None:
    photos = [photograph(number) for number in range(10)]
    rows, new = partition.caption(photos)
    assert [Path(row.image_uri).name for row in rows] == [f"{n:03d}.jpg" for n in range(10)]
    assert [row.image_sha256 for row in rows] == new == [sha256(photo) for photo in photos]
    assert len({row.caption for row in rows}) > 5
    assert {(r.status, r.width, r.captioner, r.run_id) for r in rows} == {
        ("ok", 80, "fake@0", "run")
    }
    assert len({row.annotated_at for row in rows}) == 1
    assert {row.needs_review for row in rows} == {True}
    assert rows[0].image_version == f"sha256-{sha256(photos[0])}"
    assert partition.times.seconds.keys() == {"fetch", "decode", "encode", "search"}


def test_batches_are_full_although_copies_and_failures_lie_between(partition: Partition) -> None:
    photos = [photograph(number) for number in range(7)]
    contents = [content for photo in photos for content in (photo, photo, b"no image")]
    rows, new = partition.caption(contents)
    assert partition.captioner.batches == [3, 3, 1]
    assert new == [sha256(photo) for photo in photos]
    assert [row.status for row in rows] == ["ok", "ok", "unreadable"] * 7
    assert [row.caption for row in rows[::3]] == [row.caption for row in rows[1::3]]


def test_a_batch_is_no_larger_than_its_captioner_uses(partition: Partition) -> None:
    settings = replace(partition.partitions.settings, batch_size=5)
    partition.partitions = replace(partition.partitions, settings=settings)
    partition.captioner.max_batch_size = 4
    partition.caption([photograph(number) for number in range(7)])
    assert partition.captioner.batches == [4, 3]


def test_a_known_caption_is_reused_and_judged_again(partition: Partition) -> None:
    known = photograph(1)
    partition.known[sha256(known)] = {"status": "ok", "caption": "A cat.", "confidence": 0.7}
    rows, new = partition.caption([photograph(0), known, known])
    assert new == [sha256(photograph(0))]
    assert [row.caption for row in rows[1:]] == ["A cat."] * 2
    assert [row.needs_review for row in rows] == [True, False, False]


def test_failures_are_rows_that_say_why(partition: Partition) -> None:
    records = partition.write([b"", photograph(0)[:-200], bytes(30_000)])
    records.append(ImageRecord("/no/such\udcff.jpg", "1"))
    images = partition.partitions.caption(records, partition.times)
    rows, new = images.rows, images.new
    assert [row.status for row in rows] == ["unreadable", "unreadable", "too_large", "not_found"]
    assert all(row.error and row.error.encode() for row in rows)
    assert [row.image_version for row in rows][2:] == [None, "1"]
    assert not new and not partition.captioner.batches


def test_a_sound_file_of_another_kind_is_not_called_damaged(partition: Partition) -> None:
    rows, _ = partition.caption([b"%PDF-1.7\n", b'<svg xmlns="http://www.w3.org/2000/svg"/>'])
    assert [row.status for row in rows] == ["unsupported"] * 2
    assert [row.error for row in rows] == ["not supported: PDF", "not supported: SVG"]


def test_a_lack_of_memory_has_a_status_of_its_own(
    partition: Partition, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise MemoryError

    photo = photograph(0)
    monkeypatch.setattr(Image.Image, "reduce", fail)
    monkeypatch.setattr(Image.Image, "resize", fail)
    rows, _ = partition.caption([photo])
    assert [row.status for row in rows] == ["out_of_memory"]


def test_an_image_that_lacks_memory_among_others_is_opened_again_alone(
    partition: Partition,
) -> None:
    opened: list[int] = []
    tries: Counter[bytes] = Counter()
    short, never = photograph(1), photograph(3)

    def prepare(image: bytes) -> DecodedImage:
        tries[image] += 1
        if image == never or (image == short and tries[image] == 1):
            raise OutOfMemory("it needs 4 GB")
        return decode_image(image, 16)

    @contextmanager
    def watch(number: int) -> Iterator[None]:
        opened.append(number)
        yield

    partition.captioner.prepare = prepare  # type: ignore[assignment,method-assign]
    photos = [photograph(number) for number in range(5)]
    partitions = replace(partition.partitions, watch=watch)
    images = partitions.caption(partition.write([*photos, short]), partition.times)
    assert [row.status for row in images.rows] == ["ok", "ok", "ok", "out_of_memory", "ok", "ok"]
    assert images.rows[1].caption == images.rows[5].caption
    assert images.rows[3].error == "it needs 4 GB"
    assert [tries[photo] for photo in photos] == [1, 2, 1, 2, 1]
    assert opened[-4:] == [1, 1, 3, 3]


def test_the_images_done_are_reported_after_each_batch(partition: Partition) -> None:
    done: list[int] = []
    photos = [photograph(number) for number in range(7)]
    replace(partition.partitions, report=done.append).caption(
        partition.write([b"no image", *photos]), partition.times
    )
    assert done == [4, 7, 8]


def test_a_partition_without_images_has_no_rows(partition: Partition) -> None:
    assert partition.caption([]) == ([], [])


def test_crashed_images_are_not_opened(partition: Partition) -> None:
    rows = partition.partitions.crashed_rows([ImageRecord("/none.jpg", "1")], "it died")
    assert [(r.image_uri, r.status, r.error) for r in rows] == [("/none.jpg", "crashed", "it died")]


def test_an_error_of_the_captioner_ends_the_partition(
    partition: Partition, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(partition.captioner, "answer", fail)
    with pytest.raises(ZeroDivisionError):
        partition.caption([photograph(number) for number in range(30)])
