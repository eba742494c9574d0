"""`captioner train` and `captioner evaluate`, as a user runs them."""

import json
from pathlib import Path

import pytest
from conftest import captioner, write_photographs


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve photographs and what people said of them."""
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


def test_evaluate_as_json_is_one_object(dataset: Path, tiny_checkpoint: Path) -> None:
    done = captioner(
        *("evaluate", "--images", dataset / "images", "--captions", dataset / "captions.jsonl"),
        *("--checkpoint", tiny_checkpoint, "--device", "cpu", "--json"),
    )
    result = json.loads(done.stdout)
    assert result["images"] == 12
    assert 0 <= result["scores"]["bleu4"] <= 1
    assert result["captioner"].startswith("tiny@")


def test_evaluate_says_how_far_the_confidence_can_be_trusted(dataset: Path) -> None:
    done = captioner(
        *("evaluate", "--images", dataset / "images", "--captions", dataset / "captions.jsonl"),
        *("--device", "cpu", "--json"),
    )
    result = json.loads(done.stdout)["reliability"]
    assert 0 <= result["ece"] <= 1 and 0 <= result["brier"] <= 1
    assert result["acceptable_at"][-1] == result["acceptable"]


def test_train_takes_a_recipe_and_flags_win(dataset: Path, tmp_path: Path) -> None:
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
    done = captioner("train", *flags)
    assert done.returncode == 0, done.stderr
    log = [json.loads(line) for line in (out / "training_log.jsonl").open()]
    assert [entry["stage"] for entry in log] == ["decoder", "finetune"]
    assert json.loads((out / "config.json").read_text())["encoder"] == "squeezenet1_1"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("train", "--out", "model"), "--images"),
        (("evaluate", "--images", "nowhere", "--captions", "nowhere.json"), "nowhere"),
    ],
)
def test_what_is_missing_is_named(arguments: tuple[str, ...], named: str) -> None:
    done = captioner(*arguments)
    assert done.returncode == 2
    assert named in done.stderr and "Traceback" not in done.stderr


def test_an_unknown_key_of_a_recipe_is_named(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text("learning_rat = 0.1\n")
    done = captioner("train", "--config", recipe)
    assert done.returncode == 2
    assert "learning_rat" in done.stderr and "learning_rate" in done.stderr
