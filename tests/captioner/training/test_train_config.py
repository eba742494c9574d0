"""Invalid settings are refused before the training starts, with the name of the value."""

from pathlib import Path
from typing import Any

import pytest

from captioner.errors import CaptionerError
from captioner.jobs.cli.main import main
from captioner.training.config import TrainConfig

PATHS = dict.fromkeys(("images", "captions", "val_images", "val_captions"), ("data",))


@pytest.mark.parametrize(
    "values",
    [
        {"images": (3,)},
        {"teachers": (3,)},
        {"start": ("",)},
        {"out": 3},
        {"encoder": 3},
        {"precision": "float16"},
        {"encoder_weights": 3},
        {"split": 3},
        {"hidden": True},
        {"batch_size": 0},
        {"decoder_epochs": "4"},
        {"decoder_epochs": -1},
        {"finetune_epochs": 1.5},
        {"patience": -1},
        {"seed": "a"},
        {"dropout": 2},
        {"label_smoothing": 2},
        {"ema_decay": 1.5},
        {"distillation": "x"},
        {"reward_share": float("nan")},
        {"learning_rate": "fast"},
        {"learning_rate": -1.0},
        {"encoder_learning_rate": float("nan")},
        {"weight_decay": float("inf")},
        {"mean": (0.5,), "std": (0.5, 0.5, 0.5)},
        {"std": (0.5, 0.5, 0), "mean": (0.5, 0.5, 0.5)},
        {"detector_size": 80},
    ],
    ids=str,
)
def test_the_error_for_an_invalid_value_names_it(values: dict[str, Any]) -> None:
    with pytest.raises(CaptionerError, match=f"^{next(iter(values))} must be "):
        TrainConfig(**({"out": "model"} | PATHS | values))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"hidden": 16, "heads": 3}, "multiple of heads"),
        ({"samples": 1}, "samples must be at least 2"),
        ({"mean": (0.5, 0.5, 0.5)}, "both or neither"),
        ({"decoder_epochs": 0, "finetune_epochs": 0}, "no epochs"),
    ],
    ids=str,
)
def test_values_that_do_not_fit_together_are_refused(values: dict[str, Any], expected: str) -> None:
    with pytest.raises(CaptionerError, match=expected):
        TrainConfig(**({"out": "model"} | PATHS | values))


def test_an_initial_model_needs_no_epoch() -> None:
    TrainConfig(**PATHS, out="model", start=("flickr8k",), decoder_epochs=0, finetune_epochs=0)


def test_an_invalid_value_in_a_recipe_prints_one_line_and_exits_with_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "recipe.toml"
    paths = "".join(f'{name} = "data"\n' for name in PATHS)
    recipe.write_text(f'{paths}out = "model"\nlearning_rate = nan\n')
    assert main(["train", "--config", str(recipe)]) == 2
    error = capsys.readouterr().err
    assert error == "captioner: error: learning_rate must be a number from 0, not nan\n"


def test_all_that_is_missing_is_named_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train"]) == 2
    assert capsys.readouterr().err == (
        "captioner: error: missing: --images, --captions, --val-images, --val-captions, --out; "
        "give them as options or in a recipe\n"
    )
    assert main(["train", "--images", "a", "--captions", "b", "--out", "c"]) == 2
    assert "missing: --val-images, --val-captions; give them" in capsys.readouterr().err
