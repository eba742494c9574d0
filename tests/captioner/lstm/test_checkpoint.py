"""Model directories: a round trip, and clear refusals of damaged ones."""

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from captioner.calibration import SIGNALS, Calibration, save_calibration
from captioner.errors import CheckpointError
from captioner.lstm.checkpoint import load_checkpoint, save_checkpoint
from captioner.model_directory import find_checkpoint


@pytest.fixture
def copy(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_checkpoint, tmp_path / "copy"))


def test_a_checkpoint_survives_a_round_trip(tiny_checkpoint: Path, tmp_path: Path) -> None:
    first = load_checkpoint(tiny_checkpoint)
    save_checkpoint(tmp_path / "again", first.model, first.vocabulary)
    second = load_checkpoint(tmp_path / "again")
    assert second.vocabulary == first.vocabulary
    assert second.model.config == first.model.config
    for key, value in first.model.state_dict().items():
        assert torch.equal(second.model.state_dict()[key], value)
    assert second.fingerprint == first.fingerprint


def test_saved_weights_are_the_same_in_bfloat16(tmp_path: Path, tiny_checkpoint: Path) -> None:
    first = load_checkpoint(tiny_checkpoint)
    for parameter in first.model.parameters():
        parameter.data.add_(torch.rand_like(parameter), alpha=1e-3)
    save_checkpoint(tmp_path / "rounded", first.model, first.vocabulary)
    rounded = load_checkpoint(tmp_path / "rounded").model
    for part in (rounded.encoder, rounded.decoder):
        for value in part.parameters():
            assert torch.equal(value.bfloat16().float(), value)
    torch.testing.assert_close(
        rounded.state_dict(), first.model.state_dict(), atol=1e-7, rtol=2**-8
    )


def test_values_that_are_not_finite_are_not_saved(copy: Path) -> None:
    files = {path: path.read_bytes() for path in copy.iterdir()}
    for part, name in (("decoder", "output_bias"), ("presence", "linear.weight")):
        checkpoint = load_checkpoint(copy)
        values = getattr(checkpoint.model, part).get_parameter(name)
        values.data.view(-1)[0] = torch.nan if part == "decoder" else 1e5  # too much for float16
        with pytest.raises(CheckpointError, match=f"not saved in .*{part}.{name} has values"):
            save_checkpoint(copy, checkpoint.model, checkpoint.vocabulary)
    assert {path: path.read_bytes() for path in copy.iterdir()} == files


def test_a_saved_calibration_is_loaded_and_changes_the_fingerprint(copy: Path) -> None:
    before = load_checkpoint(copy)
    ones = [1.0] * len(SIGNALS)
    calibration = Calibration("good", "here", list(SIGNALS), ones, ones, ones, 0.5)
    save_calibration(copy, calibration)
    after = load_checkpoint(copy)
    assert before.calibration is None and after.calibration == calibration
    assert after.fingerprint != before.fingerprint


def test_a_changed_weight_changes_the_fingerprint(copy: Path) -> None:
    before = load_checkpoint(copy)
    with torch.no_grad():
        before.model.decoder.output_bias[0] += 1
    save_checkpoint(copy, before.model, before.vocabulary)
    assert load_checkpoint(copy).fingerprint != before.fingerprint


def test_the_error_for_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(CheckpointError, match=r"nothing-here.*flickr8k"):
        find_checkpoint("nothing-here")


def test_a_model_of_transformers_is_pointed_to_its_prefix(copy: Path) -> None:
    (copy / "config.json").write_text('{"model_type": "blip"}')
    with pytest.raises(CheckpointError, match=f"give hf:{copy}$"):
        load_checkpoint(copy)


def cut_weights(directory: Path) -> None:
    weights = directory / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])


def pickled_weights(directory: Path) -> None:
    (directory / "model.safetensors").write_bytes(pickle.dumps({"a": 1}))


def infinite_weight(directory: Path) -> None:
    weights = load_file(directory / "model.safetensors")
    weights["decoder.output_bias"][0] = torch.inf
    save_file(weights, directory / "model.safetensors")


def no_scale(directory: Path) -> None:
    ones = [1.0] * len(SIGNALS)
    calibration = Calibration("good", "here", list(SIGNALS), ones, ones, ones, 0.5)
    save_calibration(directory, calibration)
    path = directory / "calibration.json"
    path.write_text(path.read_text().replace('"scale": [\n    1.0', '"scale": [\n    0.0'))


def no_calibration_but_a_number(directory: Path) -> None:
    (directory / "calibration.json").write_text("3")


def fewer_words(directory: Path) -> None:
    vocabulary = directory / "vocabulary.txt"
    vocabulary.write_text("\n".join(vocabulary.read_text().split()[:-1]))


def unknown_setting(directory: Path) -> None:
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config | {"wings": 2}))


def no_vocabulary(directory: Path) -> None:
    (directory / "vocabulary.txt").unlink()


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (cut_weights, "model.safetensors"),
        (pickled_weights, "safetensors format"),
        (fewer_words, "model.safetensors: does not fit"),
        (infinite_weight, "model.safetensors: decoder.output_bias has values that are not finite"),
        (no_scale, "calibration.json: not a calibration"),
        (no_calibration_but_a_number, "calibration.json: not a calibration"),
        (unknown_setting, "config.json"),
        (no_vocabulary, "vocabulary.txt"),
    ],
)
def test_the_error_for_a_damaged_model_directory_names_the_file(
    copy: Path, damage: Callable[[Path], None], named: str
) -> None:
    damage(copy)
    with pytest.raises(CheckpointError, match=named):
        load_checkpoint(copy)
