"""Training learns, resumes where it stopped, and writes a working captioner."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from captioner import Captioner
from captioner.errors import CaptionerError, CheckpointError
from captioner.lstm.checkpoint import load_checkpoint, save_checkpoint
from captioner.training.config import TrainConfig
from captioner.training.saved_state import require_settings
from captioner.training.train import train
from tests.support.colours import COLOURS, stop_after

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def trained(config: TrainConfig) -> Path:
    return train(config)


def test_training_learns_to_name_colours(config: TrainConfig, trained: Path) -> None:
    assert count_named_colours(trained, config) >= 11


def test_a_trained_model_has_a_calibrated_confidence(config: TrainConfig, trained: Path) -> None:
    captions = Captioner.load(trained, device="cpu").caption([Path(config.val_images[0], "0.jpg")])
    assert captions[0].confidence is not None


def test_a_trained_model_predicts_the_words_of_each_image(
    config: TrainConfig, trained: Path
) -> None:
    captioner = Captioner.load(trained, device="cpu")
    ids = [captioner.vocabulary.encode(colour)[0] for colour in COLOURS]
    pixels = [
        Image.open(Path(config.val_images[0], f"{n}.jpg")).resize((64, 64)) for n in range(12)
    ]
    grids = captioner.encode(np.stack([np.asarray(picture) for picture in pixels]))
    likeliest = captioner.presence(grids)[:, ids].argmax(1)
    assert (likeliest == torch.arange(12) % 3).sum() >= 11


def count_named_colours(model: Path, config: TrainConfig) -> int:
    """Return how many captions of the 12 validation images name the colour."""
    val = Path(config.val_images[0])
    captions = Captioner.load(model, device="cpu").caption([val / f"{n}.jpg" for n in range(12)])
    return sum(list(COLOURS)[n % 3] in caption.text for n, caption in enumerate(captions))


def test_fine_tuning_changes_the_encoder(config: TrainConfig, trained: Path) -> None:
    log = [json.loads(line) for line in (trained / "training_log.jsonl").open()]
    assert [entry["stage"] for entry in log] == ["decoder"] * 20 + ["finetune"] * 2
    state = torch.load(trained / "training_state.pt", weights_only=True)
    torch.manual_seed(config.seed)
    kept = load_checkpoint(trained).model.encoder.state_dict()
    assert any(
        not torch.equal(value, state["model"][f"encoder.{key}"]) for key, value in kept.items()
    )


@pytest.mark.usefixtures("rough_presence")
def test_an_interrupted_training_ends_like_an_uninterrupted_one(
    config: TrainConfig, tmp_path: Path
) -> None:
    short = replace(config, decoder_epochs=2, finetune_epochs=2, self_critical_epochs=1)
    through = replace(short, out=str(tmp_path / "through"))
    train(through)
    interrupted = replace(through, out=str(tmp_path / "interrupted"))
    stop_after(3, interrupted)
    stop_after(1, interrupted)
    with pytest.raises(CheckpointError, match=f"training of {interrupted.out} is unfinished"):
        Captioner.load(interrupted.out)
    train(interrupted)
    assert Captioner.load(interrupted.out, device="cpu").calibration
    logs = [
        [json.loads(line) for line in (Path(one.out) / "training_log.jsonl").open()]
        for one in (through, interrupted)
    ]
    assert len(logs[0]) == 5
    assert [entry["epoch"] for entry in logs[1]] == [1, 2, 1, 2, 1]
    for one, other in zip(*logs, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-4)


def test_another_model_in_the_same_folder_is_refused(config: TrainConfig, trained: Path) -> None:
    with pytest.raises(CaptionerError, match="another model"):
        train(replace(config, hidden=16))


def test_fewer_images_than_a_batch_are_refused(config: TrainConfig, tmp_path: Path) -> None:
    with pytest.raises(CaptionerError, match="batch"):
        train(replace(config, out=str(tmp_path), batch_size=49))


def test_pictures_too_small_for_the_encoder_are_refused(
    config: TrainConfig, tmp_path: Path
) -> None:
    with pytest.raises(CaptionerError, match="image_size 8 is too small"):
        train(replace(config, out=str(tmp_path), image_size=8))


def test_captions_that_leave_no_vocabulary_are_refused(config: TrainConfig, tmp_path: Path) -> None:
    with pytest.raises(CaptionerError, match="smaller min_count"):
        train(replace(config, out=str(tmp_path), min_count=1000))


def test_an_out_that_is_a_file_is_refused(config: TrainConfig, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CaptionerError, match="file: cannot create this folder"):
        train(replace(config, out=str(tmp_path / "file")))


def test_lite0_weights_come_from_a_file(config: TrainConfig, tmp_path: Path) -> None:
    lite = replace(config, encoder="efficientnet_lite0", encoder_weights="DEFAULT")
    with pytest.raises(CaptionerError, match="file"):
        train(replace(lite, out=str(tmp_path)))


def test_the_error_for_weights_of_another_encoder_names_the_file(
    config: TrainConfig, tmp_path: Path
) -> None:
    weights = tmp_path / "weights.pt"
    torch.save({"features.0.weight": torch.zeros(3)}, weights)
    with pytest.raises(CaptionerError, match=r"weights\.pt"):
        train(replace(config, out=str(tmp_path / "out"), encoder_weights=str(weights)))


def test_the_error_for_a_file_without_weights_names_it(config: TrainConfig, tmp_path: Path) -> None:
    weights = tmp_path / "weights.pt"
    weights.write_bytes(b"text")
    with pytest.raises(CaptionerError, match=r"weights\.pt"):
        train(replace(config, out=str(tmp_path / "out"), encoder_weights=str(weights)))
    with pytest.raises(CaptionerError, match="mistyped"):
        train(replace(config, out=str(tmp_path / "out"), encoder_weights="mistyped.pt"))


def test_a_trained_model_can_be_trained_further_by_a_teacher_and_rewards(
    config: TrainConfig, trained: Path, tmp_path: Path
) -> None:
    further = replace(
        config,
        out=str(tmp_path),
        start=(str(trained),),
        teachers=(str(trained),),
        decoder_epochs=0,
        finetune_epochs=1,
        self_critical_epochs=1,
        finetune_learning_rate=1e-4,
        encoder_learning_rate=1e-6,
        self_critical_learning_rate=1e-5,
        self_critical_encoder_learning_rate=1e-6,
    )
    train(further)
    log = [json.loads(line) for line in (tmp_path / "training_log.jsonl").open()]
    assert [entry["stage"] for entry in log] == ["finetune", "self_critical"]
    assert count_named_colours(tmp_path, config) >= 11  # two epochs from scratch learn none
    assert load_checkpoint(tmp_path).vocabulary == load_checkpoint(trained).vocabulary


@pytest.mark.usefixtures("rough_presence")
def test_several_initial_models_are_averaged(
    config: TrainConfig, trained: Path, tmp_path: Path
) -> None:
    checkpoint = load_checkpoint(trained)
    with torch.no_grad():
        checkpoint.model.decoder.output_bias += 2
    save_checkpoint(tmp_path / "other", checkpoint.model, checkpoint.vocabulary)
    averaged = replace(
        config,
        out=str(tmp_path / "averaged"),
        start=(str(trained), str(tmp_path / "other")),
        decoder_epochs=0,
        finetune_epochs=0,
    )
    model = load_checkpoint(train(averaged)).model
    for key, value in load_checkpoint(trained).model.state_dict().items():
        if not key.startswith("presence"):  # fitted again
            shift = 1.0 if key == "decoder.output_bias" else 0.0
            found = model.state_dict()[key]  # rounded twice, with the second start
            torch.testing.assert_close(found, value + shift, atol=1e-5, rtol=2**-7)
    one = replace(averaged, start=(str(trained),))  # into the same folder
    bias = load_checkpoint(train(one)).model.decoder.output_bias
    torch.testing.assert_close(bias, load_checkpoint(trained).model.decoder.output_bias)
    with pytest.raises(CaptionerError, match="different words or layers"):
        train(replace(averaged, start=(str(trained), "flickr8k"), out=str(tmp_path / "none")))


def test_settings_of_completed_steps_cannot_change(config: TrainConfig, trained: Path) -> None:
    for changed in ({"finetune_epochs": 3}, {"decoder_epochs": 30}, {"batch_size": 4}):
        name = next(iter(changed))
        expected = f"earlier training with {name} {getattr(config, name)};"
        with pytest.raises(CaptionerError, match=expected):
            train(replace(config, **changed))


def test_a_setting_that_an_earlier_training_did_not_know_had_its_default(
    config: TrainConfig, tmp_path: Path
) -> None:
    now = replace(config, blind=TrainConfig.blind).settings(0)
    earlier = {name: value for name, value in now.items() if name != "blind"}
    require_settings(tmp_path, {**earlier, "forgotten": 1}, now)
    with pytest.raises(CaptionerError, match=r"an earlier training with blind 0\.2; give the same"):
        require_settings(tmp_path, earlier, {**now, "blind": 0.5})


@pytest.mark.usefixtures("rough_presence")
def test_a_stage_can_be_added_before_it_begins(config: TrainConfig, tmp_path: Path) -> None:
    short = replace(config, out=str(tmp_path), decoder_epochs=1, finetune_epochs=0)
    train(short)
    train(replace(short, finetune_epochs=1, finetune_learning_rate=1e-4, patience=5))
    log = [json.loads(line) for line in (tmp_path / "training_log.jsonl").open()]
    assert [entry["stage"] for entry in log] == ["decoder", "finetune"]


def test_a_diverging_training_is_an_error_and_writes_no_model(
    config: TrainConfig, tmp_path: Path
) -> None:
    steep = replace(config, out=str(tmp_path), learning_rate=1e20, decoder_epochs=2)
    with pytest.raises(CaptionerError, match="smaller learning rates"):
        train(steep)
    assert not (tmp_path / "model.safetensors").exists()


@pytest.mark.usefixtures("rough_presence")
def test_the_image_size_is_by_default_that_of_the_initial_model(
    config: TrainConfig, trained: Path, tmp_path: Path
) -> None:
    further = replace(config, out=str(tmp_path), start=(str(trained),), image_size=None)
    train(replace(further, decoder_epochs=0, finetune_epochs=0))
    assert load_checkpoint(tmp_path).model.config.image_size == 64
    smaller = replace(further, out=str(tmp_path / "smaller"), image_size=48)
    train(replace(smaller, decoder_epochs=0, finetune_epochs=0))
    assert load_checkpoint(smaller.out).model.config.image_size == 48
