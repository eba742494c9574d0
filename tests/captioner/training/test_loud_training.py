"""A training that fails or stops says so, and only a finished model captions."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torchvision.models import squeezenet1_1

from captioner import Captioner
from captioner.errors import CaptionerError, CheckpointError
from captioner.jobs.cli.main import main
from captioner.lstm.checkpoint import load_checkpoint
from captioner.model_directory import is_unfinished
from captioner.training import progress
from captioner.training.config import TrainConfig
from captioner.training.train import train
from tests.support.colours import stop_after, write_dataset

pytestmark = pytest.mark.slow


@pytest.mark.usefixtures("rough_presence")
def test_a_model_is_unfinished_until_its_confidence_is_calibrated(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = replace(config, out=str(tmp_path / "model"), decoder_epochs=1, finetune_epochs=0)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("captioner.training.train.calibrate", interrupt)
        train(short)
    assert is_unfinished(Path(short.out))
    train(short)
    assert not is_unfinished(Path(short.out))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("captioner.training.train.calibrate", interrupt)
        train(short)  # fits the model again, so that it has no calibration meanwhile
    assert is_unfinished(Path(short.out))


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.usefixtures("rough_presence")
def test_an_unfinished_model_is_a_start_but_no_teacher(
    config: TrainConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    unfinished = replace(config, out=str(tmp_path / "unfinished"))
    stop_after(1, unfinished)
    so_far = replace(
        config,
        start=(unfinished.out,),
        out=str(tmp_path / "so-far"),
        decoder_epochs=0,
        finetune_epochs=0,
    )
    train(so_far)
    assert f"the training of {unfinished.out} is unfinished" in caplog.text
    photo = Path(config.val_images[0], "0.jpg")
    assert Captioner.load(so_far.out, device="cpu").caption(photo).confidence is not None
    with pytest.raises(CheckpointError, match=f"training of {unfinished.out} is unfinished"):
        train(replace(config, out=str(tmp_path / "taught"), teachers=(unfinished.out,)))


def test_a_diverging_stage_names_itself_and_leaves_the_best_model_so_far(
    config: TrainConfig, tmp_path: Path
) -> None:
    steep = replace(config, out=str(tmp_path), decoder_epochs=2, finetune_learning_rate=1e20)
    expected = (
        r"^finetune, epoch 1 of 2: the (loss|gradient) is (nan|inf); choose smaller learning rates "
        r"\(finetune_learning_rate, encoder_learning_rate\) and another output folder, with "
        rf"--start {tmp_path} to go on from the best model so far"
    )
    with pytest.raises(CaptionerError, match=expected):
        train(steep)
    log = [json.loads(line) for line in (tmp_path / "training_log.jsonl").open()]
    assert [entry["stage"] for entry in log] == ["decoder"] * 2
    load_checkpoint(tmp_path)
    assert is_unfinished(tmp_path)


@pytest.mark.usefixtures("rough_presence")
def test_a_diverging_policy_gradient_is_an_error_too(config: TrainConfig, tmp_path: Path) -> None:
    steep = replace(
        config,
        out=str(tmp_path),
        decoder_epochs=1,
        finetune_epochs=0,
        self_critical_epochs=1,
        self_critical_learning_rate=1e20,
    )
    with pytest.raises(CaptionerError, match=r"^self_critical, epoch 1 of 1: .* learning rates"):
        train(steep)


def test_features_too_large_for_float16_are_refused(config: TrainConfig, tmp_path: Path) -> None:
    encoder = squeezenet1_1()
    encoder.features[0].weight.data *= 1e6
    torch.save(encoder.state_dict(), tmp_path / "loud.pt")
    loud = replace(config, out=str(tmp_path / "out"), encoder_weights=str(tmp_path / "loud.pt"))
    with pytest.raises(CaptionerError, match="features of the encoder are too large for float16"):
        train(loud)


def test_few_images_and_epochs_give_a_usable_model_and_a_line_for_each_phase(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_dataset(tmp_path / "train", 40)
    write_dataset(tmp_path / "val", 12)
    (tmp_path / "recipe.toml").write_text("image_size = 96\n")
    options = {
        "--out": "model",
        "--config": "recipe.toml",
        "--images": "train",
        "--val-images": "val",
    }
    options |= {"--captions": "train/captions.jsonl", "--val-captions": "val/captions.jsonl"}
    paths = [word for name, path in options.items() for word in (name, str(tmp_path / path))]
    epochs = ["--decoder-epochs", "1", "--finetune-epochs", "1", "--device", "cpu"]
    assert main(["train", *paths, *epochs]) == 0
    said = [line.removeprefix("captioner: ") for line in capsys.readouterr().err.splitlines()]
    score = r"loss \d+\.\d{4}, CIDEr \d+\.\d{4}( \(the best so far\))?"
    for line, expected in zip(
        said,
        [
            "decoding 40 images",
            "decoding 12 images",
            "the encoder efficientnet_lite0 has random weights: .*",
            "encoding 40 images",
            "decoder, epoch 1 of 1: training on 40 images",
            "decoder, epoch 1 of 1: evaluating on 12 validation images",
            "encoding 12 images",
            f"decoder, epoch 1 of 1: {score}",
            "finetune, epoch 1 of 1: training on 40 images",
            "finetune, epoch 1 of 1: evaluating on 12 validation images",
            f"finetune, epoch 1 of 1: {score}",
            "fitting word presence to 40 images",
            "calibrating the confidence on 12 validation images",
        ],
        strict=True,
    ):
        assert re.fullmatch(expected, line)
    photos = [tmp_path / "val" / f"{number}.jpg" for number in range(12)]
    for caption in Captioner.load(tmp_path / "model", device="cpu").caption(photos):
        assert caption.text.endswith(".")
        assert caption.confidence is not None and 0 <= caption.confidence <= 1


def test_without_a_terminal_a_long_phase_is_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(progress, "SECONDS", 1e-9)
    caplog.set_level("INFO", "captioner")
    assert list(progress.bar(range(3), "decode", " images")) == [0, 1, 2]
    assert [re.sub(", .*", "", line) for line in caplog.messages] == [
        f"decode: {number} of 3 images" for number in (1, 2, 3)
    ]
