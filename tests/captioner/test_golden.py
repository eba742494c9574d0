"""The captions of some pictures: a change of the code must not change them unnoticed."""

import json

import numpy as np
import pytest
from PIL import Image

from tests.support.golden import CAPTIONS, PIXELS, captions_of, pixels_of_pictures

CHANGED = (
    "captions changed: raise PIPELINE_VERSION in captioner/identity.py, unless only the bundled "
    "model is another one, and renew the golden values with `python -m tests.support.golden`"
)


def test_golden_pictures_have_the_pixels_of_this_pipeline_version() -> None:
    golden, pixels = np.asarray(Image.open(PIXELS)).astype(int), pixels_of_pictures()
    assert pixels.shape == golden.shape, CHANGED
    difference = np.abs(pixels - golden)  # libraries of other versions may round otherwise
    assert difference.mean() < 0.1 and difference.max() <= 3, CHANGED


def test_golden_pixels_have_the_captions_of_this_pipeline_version() -> None:
    captions = captions_of(np.asarray(Image.open(PIXELS)))
    for caption, known in zip(captions, json.loads(CAPTIONS.read_text()), strict=True):
        assert caption["text"] == known["text"], CHANGED
        for value in ("log_probs", "confidence"):
            assert caption[value] == pytest.approx(known[value], abs=2e-3), CHANGED
