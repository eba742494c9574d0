"""Model directories with random weights, small and fast."""

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.photographs import photograph

WORDS = ("a", "dog", "cat", "man", "runs", "sits", "on", "in", "the", "grass", "red", "coat")


def make_tiny_checkpoint(directory: Path) -> Path:
    """Write a model directory with random weights, small and fast; its captions differ."""
    import torch  # here, because most tests do not need it

    from captioner.lstm.checkpoint import save_checkpoint
    from captioner.lstm.model import CaptionModel, ModelConfig
    from captioner.lstm.vocabulary import SPECIAL_WORDS, Vocabulary

    torch.manual_seed(0)
    config = ModelConfig(encoder="mobilenet_v3_small", image_size=64, hidden=32, heads=4)
    vocabulary = Vocabulary(SPECIAL_WORDS + WORDS)
    model = CaptionModel(config, len(vocabulary))
    for layer in model.encoder.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = 1.0  # with untrained statistics all images would look alike
    pictures = (Image.open(io.BytesIO(photograph(number))) for number in range(12))
    pixels = np.stack([np.asarray(picture.resize((64, 64))) for picture in pictures])
    with torch.no_grad():
        model.encoder.train()(torch.from_numpy(pixels))
    save_checkpoint(directory, model, vocabulary)
    return directory


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a model directory with random weights, small and fast."""
    return make_tiny_checkpoint(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def calibrated_checkpoint(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the tiny checkpoint with a calibration; only some captions have more than 0.5.

    The calibration says: at a confidence of 0.5, precision 0.85 and coverage 23%; the best
    precision is 0.9. Words have a confidence by their log-probability.
    """
    directory = tmp_path_factory.mktemp("models") / "calibrated"
    shutil.copytree(tiny_checkpoint, directory)
    calibrate_tiny_checkpoint(directory)
    return directory


def calibrate_tiny_checkpoint(directory: Path) -> None:
    """Write a calibration for a model directory; see `calibrated_checkpoint`."""
    from captioner import Captioner
    from captioner.calibration import SIGNALS, Calibration, OperatingPoint, save_calibration

    photos = [photograph(number) for number in range(12)]
    captions = Captioner.load(directory, device="cpu").caption(photos)
    centre = float(np.mean([caption.log_prob for caption in captions]))
    weights = [float(signal == "sum_log_prob") for signal in SIGNALS]
    count = len(SIGNALS)
    points = [OperatingPoint(0.99, 0.05, 0.9), OperatingPoint(0.5, 0.23, 0.85)]
    calibration = Calibration(
        "good", "here", list(SIGNALS), [centre] * count, [10.0] * count, weights, 0.0,
        [*points, OperatingPoint(0.0, 1.0, 0.4)],
        words=Calibration("right", "here", ["log_prob"], [-1.0], [1.0], [1.0], 0.0),
    )  # fmt: skip
    save_calibration(directory, calibration)
