"""The bundled checkpoint: what its users rely on, in both precisions."""

import statistics

import numpy as np
import pytest
from skimage import data

from captioner import Captioner
from captioner.calibration import read_calibration
from captioner.model_directory import find_checkpoint
from captioner.training.evaluation.acceptability import DEFINITION

RANDOM = np.random.default_rng(0)
NOISE = [RANDOM.integers(0, 256, (300, 400, 3), dtype=np.uint8) for _ in range(8)]
FLAT = [np.full((300, 400, 3), RANDOM.integers(0, 256, 3), np.uint8) for _ in range(8)]


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def captioner(request: pytest.FixtureRequest) -> Captioner:
    return Captioner.load("flickr8k", device="cpu", precision=request.param)


def test_its_calibration_has_the_current_definition_and_reaches_a_precision() -> None:
    calibration = read_calibration(find_checkpoint("flickr8k"))
    assert calibration is not None and calibration.acceptable == DEFINITION
    few, many = (calibration.for_precision(precision) for precision in (0.8, 0.5))
    assert few.confidence > many.confidence and few.coverage < many.coverage


def test_its_confidence_is_low_for_images_that_show_nothing(captioner: Captioner) -> None:
    for images in (NOISE, FLAT):
        confidences = [caption.confidence or 0 for caption in captioner.caption(images)]
        assert statistics.median(confidences) < 0.1


def test_it_recognises_a_cat_and_writes_sentences(captioner: Captioner) -> None:
    cat, *others = captioner.caption([data.chelsea(), data.astronaut(), *NOISE])
    assert "cat" in cat.text.split()
    assert (cat.confidence or 0) > max(caption.confidence or 0 for caption in others[1:])
    for caption in (cat, *others):
        assert caption.text[0].isupper() and caption.text.endswith(".")
        assert len(caption.text) <= 125


def test_embeddings_have_the_size_that_vector_stores_are_told(captioner: Captioner) -> None:
    pixels = np.stack([image[:256, :256] for image in NOISE[:2]])
    vectors = captioner.embed(captioner.encode(pixels))
    assert vectors.shape == (2, 1280) and vectors.dtype == np.float16
