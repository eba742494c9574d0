"""A model to start from may be given a detector and more words; until it is trained, it says the
same."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from captioner.errors import CaptionerError
from captioner.lstm.checkpoint import load_checkpoint, save_checkpoint
from captioner.lstm.model import CaptionModel, ModelConfig
from captioner.lstm.vocabulary import BOS, Vocabulary
from captioner.lstm.yolox import CHANNELS, YoloxNano
from captioner.model_directory import find_checkpoint
from captioner.training.config import TrainConfig
from captioner.training.start import average_checkpoints, build_model
from captioner.training.train import require_grid, train


@pytest.fixture
def config(tiny_checkpoint: Path) -> TrainConfig:
    path = ("unused",)
    return TrainConfig(path, path, path, path, "unused", start=(str(tiny_checkpoint),))


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """Weights of the detector as published: its own, and those of boxes after each head's."""
    torch.manual_seed(0)
    weights = {key: value.half() for key, value in YoloxNano().state_dict().items()}
    kernel = weights["stem.0.weight"].view(16, 3, 3, 2, 3, 2)  # [outputs, channel, y, dy, x, dx]
    weights["stem.0.weight"] = kernel.permute(0, 5, 3, 1, 2, 4).reshape(16, 12, 3, 3)
    boxes = {"boxes.weight": torch.zeros(4, 64, 1, 1), "boxes.bias": torch.zeros(4)}
    torch.save(weights | boxes, tmp_path / "yolox.pt")
    return tmp_path / "yolox.pt"


@pytest.mark.parametrize("trained", [True, False])
@torch.inference_mode()
def test_a_detector_and_new_words_change_nothing_at_first(
    config: TrainConfig, published: Path, tmp_path: Path, trained: bool
) -> None:
    former = load_checkpoint(config.start[0])
    words = former.vocabulary.extended(Vocabulary.build(["zebra zebra dog"], min_count=1))
    assert words.words == (*former.vocabulary.words, "zebra")
    extended = replace(config, detector="yolox_nano", detector_weights=str(published))
    if not trained:
        extended = replace(extended, decoder_epochs=0, finetune_epochs=0)
    model = build_model(extended, words).eval()
    save_checkpoint(tmp_path / "extended", model, words)
    model = load_checkpoint(tmp_path / "extended").model

    pixels = torch.randint(0, 256, (3, 64, 64, 3), dtype=torch.uint8)
    grid, larger = former.model.encoder(pixels), model.encoder(pixels)
    assert larger.shape[2] == grid.shape[2] + CHANNELS
    reads = model.decoder.project_grid[0].in_features
    assert reads == (larger if trained else grid).shape[2]
    tokens = torch.full((3, 1, 1), BOS)
    expected = former.model.decoder.predict(former.model.decoder(grid, tokens))
    logits = model.decoder.predict(model.decoder(larger, tokens))
    torch.testing.assert_close(logits[..., :-1], expected, rtol=1e-4, atol=1e-4)
    presence = model.presence(larger)
    torch.testing.assert_close(presence[:, :-1], former.model.presence(grid))
    assert (presence[:, -1] < -10).all()


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [("image_size", 96, "64, and .* 96"), ("std", (0.5, 0.5, 0.5), ".*, and .* 0.5"),
     ("heads", 1, "[2-9], and .* 1"), ("dropout", 0.9, None)],
)  # fmt: skip
def test_models_that_compute_in_different_ways_cannot_be_averaged(
    tiny_checkpoint: Path, tmp_path: Path, field: str, value: object, said: str | None
) -> None:
    other = load_checkpoint(tiny_checkpoint)
    other.model.config = replace(other.model.config, **{field: value})
    save_checkpoint(tmp_path / "other", other.model, other.vocabulary)
    names = [str(tiny_checkpoint), str(tmp_path / "other")]
    if said is None:
        average_checkpoints(names)
        return
    with pytest.raises(CaptionerError, match=f"has {field} {said}.*only models that agree"):
        average_checkpoints(names)


def test_a_detector_that_sees_the_same_images_needs_some_that_it_can_halve_five_times() -> None:
    model = CaptionModel(ModelConfig(image_size=80, detector="yolox_nano"), words=9)
    with pytest.raises(CaptionerError, match="image_size 80 does not fit the detector yolox_nano"):
        require_grid(model)
    model = CaptionModel(ModelConfig(image_size=80, detector="yolox_nano", detector_size=64), 9)
    require_grid(model)


@pytest.mark.parametrize("role", ["start", "teachers"])
def test_a_training_does_not_overwrite_a_model_that_it_reads(
    config: TrainConfig, tmp_path: Path, role: str
) -> None:
    (tmp_path / "link").symlink_to(config.start[0])
    bundled = find_checkpoint("flickr8k")
    for model, out in ((config.start[0], tmp_path / "link"), ("flickr8k", bundled)):
        with pytest.raises(CaptionerError, match=f"overwrite the model {model}: choose another"):
            train(replace(config, **{role: (model,)}, out=str(out)))
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(CaptionerError, match="cannot create this folder"):
        train(replace(config, out=str(tmp_path / "loop")))


def test_a_detector_needs_its_weights(config: TrainConfig, tmp_path: Path) -> None:
    vocabulary = load_checkpoint(config.start[0]).vocabulary
    lacking = replace(config, detector="yolox_nano")
    with pytest.raises(CaptionerError, match="yolox_nano needs a file of its weights"):
        build_model(lacking, vocabulary)
    torch.save({"stem.weight": torch.zeros(3)}, tmp_path / "other.pt")
    with pytest.raises(CaptionerError, match=r"other\.pt: does not fit the detector yolox_nano"):
        build_model(replace(lacking, detector_weights=str(tmp_path / "other.pt")), vocabulary)
    with pytest.raises(CaptionerError, match="unknown detector 'yolox'"):
        build_model(replace(config, detector="yolox"), vocabulary)
