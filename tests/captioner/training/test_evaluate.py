"""`captioner train` and `captioner evaluate`, as a user runs them."""

import json
import re
import subprocess
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torchvision.models import get_model, get_model_weights

from captioner.jobs.cli.main import main
from captioner.jobs.cli.training import RECIPES, find_recipe
from captioner.jobs.toml_file import read_toml
from captioner.training.config import TrainConfig
from tests.support.commands import captioner, command, environment
from tests.support.photographs import write_photographs

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve photographs with captions."""
    folder = write_photographs(tmp_path_factory.mktemp("data") / "images", 12)
    names = sorted(path.name for path in folder.iterdir())
    lines = [
        {"image": name, "captions": [f"a dog runs on grass {n % 3}", "a dog in the grass"]}
        for n, name in enumerate(names)
    ]
    (folder.parent / "captions.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return folder.parent


def test_evaluate_prints_every_metric(dataset: Path, tiny_checkpoint: Path) -> None:
    done = captioner(
        *("evaluate", "--images", dataset / "images", "--captions", dataset / "captions.jsonl"),
        *("--checkpoint", tiny_checkpoint, "--device", "cpu"),
    )
    assert done.returncode == 0, done.stderr
    for name in ("BLEU-1", "BLEU-4", "ROUGE-L", "CIDEr", "unique", "most frequent", "images/s"):
        assert name in done.stdout


def evaluated(
    dataset: Path, capsys: pytest.CaptureFixture[str], *options: object
) -> dict[str, Any]:
    """Evaluate in this process; return what was printed."""
    data = ("--images", dataset / "images", "--captions", dataset / "captions.jsonl")
    assert main(["evaluate", *map(str, (*data, "--device", "cpu", "--json", *options))]) == 0
    return json.loads(capsys.readouterr().out)


def test_evaluate_as_json_is_one_object(
    dataset: Path, tiny_checkpoint: Path, no_java: None, capsys: pytest.CaptureFixture[str]
) -> None:
    result = evaluated(dataset, capsys, "--checkpoint", tiny_checkpoint)
    assert result["images"] == 12
    assert 0 <= result["scores"]["bleu4"] <= 1
    assert result["captioner"].startswith("tiny@")


def test_evaluate_reports_and_plots_the_reliability_of_the_confidence(
    dataset: Path, tmp_path: Path, no_java: None, capsys: pytest.CaptureFixture[str]
) -> None:
    result = evaluated(dataset, capsys, "--plots", tmp_path / "plots")["reliability"]
    assert 0 <= result["ece"] <= 1 and 0 <= result["brier"] <= 1
    assert result["acceptable_at"][-1] == result["acceptable"]
    for name in ("reliability.png", "risk_coverage.png"):
        with Image.open(tmp_path / "plots" / name) as image:
            assert len(image.convert("RGB").getcolors(1_000_000)) > 10  # not empty


@pytest.mark.usefixtures("rough_presence")
def test_train_reads_a_recipe_which_flags_override(dataset: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    data, captions = str(dataset / "images"), str(dataset / "captions.jsonl")
    recipe.write_text(
        f"images = [{data!r}]\ncaptions = [{captions!r}]\n"
        f"val_images = [{data!r}]\nval_captions = [{captions!r}]\n"
        "encoder = 'squeezenet1_1'\nimage_size = 64\nhidden = 16\nheads = 2\n"
        "decoder_epochs = 5\nfinetune_epochs = 1\nbatch_size = 4\nmin_count = 1\n"
    )
    out = tmp_path / "model"
    flags = ("--config", recipe, "--out", out, "--decoder-epochs", 1, "--device", "cpu")
    assert main(["train", *map(str, flags)]) == 0
    log = [json.loads(line) for line in (out / "training_log.jsonl").open()]
    assert [entry["stage"] for entry in log] == ["decoder", "finetune"]
    assert json.loads((out / "config.json").read_text())["encoder"] == "squeezenet1_1"


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.toml")), ids=lambda path: path.stem)
def test_every_recipe_of_the_package_is_valid(path: Path) -> None:
    values = read_toml(path, [field.name for field in fields(TrainConfig)])
    assert TrainConfig(**values).self_critical_epochs > 0
    assert find_recipe(path.stem) == path


def test_the_coco_recipe_runs_on_data_in_its_layout(tmp_path: Path) -> None:
    """Karpathy's file, published encoder weights and all stages; only smaller and shorter."""
    entries: list[dict[str, Any]] = []
    for number, path in enumerate(sorted(write_photographs(tmp_path / "images", 12).iterdir())):
        split = "val" if number % 3 == 0 else "train"
        target = tmp_path / "coco" / f"{split}2014" / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        path.rename(target)
        sentences = [{"raw": f"A dog runs on grass {n}."} for n in range(5)]
        entries.append({"filepath": f"{split}2014", "filename": path.name, "split": split})
        entries[-1]["sentences"] = sentences
    (tmp_path / "coco" / "dataset_coco.json").write_text(json.dumps({"images": entries}))
    url = get_model_weights("resnet18")["DEFAULT"].url
    downloaded = tmp_path / "torch" / "hub" / "checkpoints" / Path(url).name
    downloaded.parent.mkdir(parents=True)
    torch.save(get_model("resnet18").state_dict(), downloaded)
    small = tmp_path / "small.toml"
    recipe = find_recipe("coco").read_text()
    assert 'encoder = "resnet101"' in recipe and 'encoder_weights = "DEFAULT"' in recipe
    for key, value in {"image_size": 64, "hidden": 16, "min_count": 1, "batch_size": 4}.items():
        recipe = re.sub(rf"^{key} = .*", f"{key} = {value}", recipe, flags=re.MULTILINE)
    small.write_text(re.sub(r"epochs = \d+", "epochs = 1", recipe) + "heads = 2\n")
    done = subprocess.run(
        command("train", "--config", small, "--encoder", "resnet18", "--device", "cpu"),
        env=environment(TORCH_HOME=str(tmp_path / "torch")),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    log = [json.loads(line) for line in (tmp_path / "coco-resnet101/training_log.jsonl").open()]
    assert [entry["stage"] for entry in log] == ["decoder", "finetune", "self_critical"]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("train", "--out", "model"), "--images"),
        (("evaluate", "--images", "nowhere", "--captions", "nowhere.json"), "nowhere"),
    ],
)
def test_the_error_for_a_missing_input_names_it(
    arguments: tuple[str, ...], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert named in error and "Traceback" not in error


def test_the_error_for_an_unknown_key_of_a_recipe_names_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text("learning_rat = 0.1\n")
    assert main(["train", "--config", str(recipe)]) == 2
    error = capsys.readouterr().err
    assert "learning_rat" in error and "learning_rate" in error


def test_an_impossible_folder_for_plots_is_refused_before_the_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    paths = ("--images", "nowhere", "--captions", "nowhere.json", "--plots", str(tmp_path / "file"))
    assert main(["evaluate", *paths]) == 2
    assert "file: cannot create this folder" in capsys.readouterr().err


@pytest.mark.parametrize("number", ["0", "-1", "many", "2.5"])
def test_the_error_for_an_invalid_number_is_in_plain_words(
    number: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", "--images", "x", "--captions", "y", "--batch-size", number]) == 2
    error = capsys.readouterr().err
    assert f"--batch-size: must be a whole number above 0, not '{number}'" in error
