"""Weights for int8: an encoder learns to round, from images without captions."""

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from captioner.captioner import Captioner
from captioner.errors import CaptionerError, DatasetError
from captioner.jobs.cli.main import main
from captioner.lstm.checkpoint import load_checkpoint
from captioner.model_directory import BUNDLED, INT8
from captioner.training.quantize import Learner, quantize
from tests.support.int8 import needs_int8
from tests.support.photographs import photograph, write_photographs


def learner() -> Learner:
    model = load_checkpoint("flickr8k").model
    return Learner(model.encoder, model.decoder.project_grid[0].weight.detach())


def test_learning_makes_the_error_smaller() -> None:
    torch.manual_seed(1)
    pictures = [Image.open(io.BytesIO(photograph(seed))).resize((128, 128)) for seed in range(16)]
    pixels = np.stack([np.asarray(picture) for picture in pictures])
    unlearned, learned = learner(), learner()
    assert learned.learn(pixels, 30) < 0.8 * unlearned.learn(pixels, 1)


@needs_int8
def test_the_command_writes_weights_that_caption(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = Path(shutil.copytree(BUNDLED / "flickr8k", tmp_path / "model"))
    (model / INT8).unlink()
    images = write_photographs(tmp_path / "images", 4)
    (images / "notes.txt").write_text("no image")
    assert main(["quantize", str(model), "--images", str(images), "--steps", "2"]) == 0
    assert f"quantized: {model / INT8}; its features differ" in capsys.readouterr().out
    captioner = Captioner.load(model, device="cpu", precision="int8")
    assert captioner.caption(images / "000.jpg").text


def test_an_encoder_that_cannot_is_refused(tiny_checkpoint: Path, tmp_path: Path) -> None:
    images = write_photographs(tmp_path, 1)
    with pytest.raises(CaptionerError, match="only efficientnet_lite0 can"):
        quantize(str(tiny_checkpoint), [images])


def test_a_folder_without_images_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(DatasetError, match=f"{tmp_path}: no images"):
        quantize(str(BUNDLED / "flickr8k"), [tmp_path])


def test_the_name_of_a_bundled_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CaptionerError, match="flickr8k: give a model directory"):
        quantize("flickr8k", [tmp_path])
