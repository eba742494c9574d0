"""The bundled checkpoint: what its users rely on."""

import statistics

import numpy as np
import pytest
from skimage import data

from captioner import Captioner
from captioner.calibration import read_calibration
from captioner.model_directory import find_checkpoint
from captioner.training.acceptability import DEFINITION


@pytest.fixture(scope="module")
def captioner() -> Captioner:
    return Captioner.load("flickr8k", device="cpu")


def test_its_calibration_is_of_what_is_acceptable_today_and_finds_a_precision() -> None:
    calibration = read_calibration(find_checkpoint("flickr8k"))
    assert calibration is not None and calibration.acceptable == DEFINITION
    few, many = (calibration.for_precision(precision) for precision in (0.8, 0.5))
    assert few.confidence > many.confidence and few.coverage < many.coverage


def test_it_is_not_sure_of_images_that_show_nothing(captioner: Captioner) -> None:
    random = np.random.default_rng(0)
    noise = [random.integers(0, 256, (300, 400, 3), dtype=np.uint8) for _ in range(8)]
    flat = [np.full((300, 400, 3), random.integers(0, 256, 3), np.uint8) for _ in range(8)]
    for images in (noise, flat):
        confidences = [caption.confidence or 0 for caption in captioner.caption(images)]
        assert statistics.median(confidences) < 0.1


def test_it_tells_a_cat_and_writes_sentences(captioner: Captioner) -> None:
    cat, astronaut = captioner.caption([data.chelsea(), data.astronaut()])
    assert "cat" in cat.text.split()
    assert (cat.confidence or 0) > (astronaut.confidence or 0)
    for caption in (cat, astronaut):
        assert caption.text[0].isupper() and caption.text.endswith(".")
        assert len(caption.text) <= 125
