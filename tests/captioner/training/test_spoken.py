"""What captioners of any kind say of a split."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from PIL import Image

from captioner import (
    Caption,
    Captioner,
    CaptionerUnavailable,
    DatasetError,
    RejectedCaption,
)
from captioner.calibration import Calibration
from captioner.captioner import Answer, Measure
from captioner.house_rules import HouseRules
from captioner.image import DecodedImage, decode_image
from captioner.training.data.dataset import Split, load_split
from captioner.training.evaluation.evaluate import evaluate, given_confidence
from captioner.training.evaluation.spoken import listen
from tests.support.photographs import write_photographs

pytestmark = pytest.mark.usefixtures("no_java")
GOOD, BAD = Caption("A dog runs on grass.", 0.9), Caption("A boat.", 0.2)
REJECTED, DOWN = RejectedCaption("no sentence"), CaptionerUnavailable("down")


class Reciting(Captioner):
    """A captioner that gives its answers one after another, again and again."""

    batch_size = 4
    house_rules = HouseRules()

    def __init__(self, *answers: Answer, name: str = "reciting@0") -> None:
        self.identity, self._answers, self._said = name, answers, 0
        self.batches: list[int] = []

    @property
    def settings(self) -> Mapping[str, object]:
        return {"calibration": None}

    def prepare(self, image: bytes | Image.Image) -> DecodedImage:
        return decode_image(image, 8)

    def answer(self, images: Sequence[DecodedImage], measure: Measure) -> Sequence[Answer]:
        self.batches.append(len(images))
        start, self._said = self._said, self._said + len(images)
        return [self._answers[n % len(self._answers)] for n in range(start, self._said)]


@pytest.fixture
def split(tmp_path: Path) -> Split:
    """Ten photographs that show a dog."""
    images = write_photographs(tmp_path / "images", 10)
    captions = tmp_path / "captions.jsonl"
    line = '{{"image": "{:03d}.jpg", "captions": ["a dog runs", "a dog on grass"]}}\n'
    captions.write_text("".join(line.format(number) for number in range(10)))
    return load_split([images], [captions], None)


def test_every_image_is_captioned_in_batches_that_the_captioner_likes(split: Split) -> None:
    captioner = Reciting(GOOD, BAD)
    said = listen(captioner, split)
    assert said.captions == [GOOD, BAD] * 5
    assert said.acceptable.tolist() == [True, False] * 5
    assert captioner.batches == [4, 4, 2]
    assert listen(captioner, split, batch_size=10).captions == [GOOD, BAD] * 5
    assert captioner.batches[3:] == [10]


def test_a_rejected_caption_is_not_acceptable_and_has_no_confidence(split: Split) -> None:
    captioner = Reciting(GOOD, GOOD, BAD, REJECTED, REJECTED)
    said = listen(captioner, split)
    result = evaluate(said, given_confidence(captioner, said))
    assert (result.images, result.rejected, len(said.captions)) == (10, 4, 6)
    assert result.acceptable == pytest.approx(0.4)
    assert result.reliability and len(said.captions) == sum(b[2] for b in result.reliability.bins)
    assert "rejected captions  4" in str(result)


def test_a_calibration_gives_a_confidence_to_captions_without_one(split: Split) -> None:
    captioner = Reciting(GOOD, Caption("A boat."))
    captioner.calibration = Calibration("good", "here", ["words"], [2.0], [1.0], [1.0], 0.0)
    assert [each.confidence for each in listen(captioner, split).captions] == [0.9, 0.5] * 5


def test_captions_without_confidence_are_scored_without_it(split: Split) -> None:
    captioner = Reciting(Caption("A dog."))
    said = listen(captioner, split)
    result = evaluate(said, given_confidence(captioner, said))
    assert result.reliability is None and "AUROC" not in str(result)
    assert "acceptable         100.0%" in str(result)


def test_images_that_the_first_captioner_did_not_caption_are_left_out(split: Split) -> None:
    first = Reciting(BAD, REJECTED, name="first@0")
    said = listen(Reciting(GOOD), split, first=first)
    assert said.first == [BAD] * 5 and said.captions == [GOOD] * 5


def test_the_first_caption_of_an_image_stays_beside_its_caption(split: Split) -> None:
    said = listen(Reciting(GOOD, REJECTED), split, first=Reciting(BAD, GOOD))
    assert said.first == [BAD] * 5


def test_a_captioner_that_does_not_answer_ends_the_evaluation(split: Split) -> None:
    with pytest.raises(CaptionerUnavailable, match="down"):
        listen(Reciting(GOOD, DOWN), split)
    with pytest.raises(Exception, match="wrote no caption"):
        listen(Reciting(REJECTED), split)


def test_a_damaged_image_is_named(split: Split, tmp_path: Path) -> None:
    (tmp_path / "images" / "003.jpg").write_bytes(b"nothing")
    with pytest.raises(DatasetError, match=r"003\.jpg: .*replace the file"):
        listen(Reciting(GOOD), split)
