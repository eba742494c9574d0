"""The command `captioner train`."""

import argparse
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from captioner.jobs.cli.job_options import whole
from captioner.jobs.config.values import DEVICES
from captioner.jobs.errors import ExitCode
from captioner.jobs.messages import beside_a_bar
from captioner.jobs.toml_file import read_toml
from captioner.training import config
from captioner.training.config import DATA, SEQUENCES, TRAINING_PRECISIONS, TrainConfig

if TYPE_CHECKING:
    from captioner.jobs.cli import Commands

RECIPES = Path(config.__file__).parent / "recipes"
CAPTION_FORMATS = "JSONL (image, captions), COCO captions_*.json, Karpathy dataset_*.json or .token"


def add_train(commands: "Commands") -> None:
    parser = commands.add_parser(
        "train",
        help="train a captioner on captioned images",
        description="Train a captioner: the decoder on frozen features, then encoder and decoder, "
        "then both on the reward of captions that they sample. "
        "The same command continues an interrupted training after its last complete epoch.",
        argument_default=argparse.SUPPRESS,  # only what is given overrides the recipe
    )
    add = parser.add_argument
    add("--images", metavar="DIR_OR_TAR", nargs="+", help="images to train on")
    add("--captions", metavar="FILE", nargs="+", help=CAPTION_FORMATS)
    add("--val-images", metavar="DIR_OR_TAR", nargs="+", help="images to choose the best epoch by")
    add("--val-captions", metavar="FILE", nargs="+", help="their captions")
    add("--split", help="split of a Karpathy file to train on, such as train")
    add("--val-split", help="split of a Karpathy file to choose by, such as val")
    add("--out", metavar="DIR", help="model directory to write")
    add("--config", metavar="RECIPE", dest="recipe", help="TOML file, coco or flickr8k; flags win")
    add("--start", metavar="MODEL", nargs="+", help="model to continue from, or several to average")
    add("--teachers", metavar="MODEL", nargs="+", help="models to learn from, too")
    add("--encoder", metavar="NAME", help="torchvision CNN (efficientnet_lite0)")
    add("--encoder-weights", metavar="WEIGHTS", help="DEFAULT (torchvision's), or a file")
    add("--detector", metavar="NAME", help="detector beside the CNN: yolox_nano (none)")
    add("--detector-weights", metavar="FILE", help="its weights")
    add("--new-words", action="store_true", help="add words to those of the model to start from")
    add("--decoder-epochs", metavar="N", type=whole, help="epochs of the decoder alone (8)")
    add("--finetune-epochs", metavar="N", type=whole, help="epochs of encoder and decoder (8)")
    add("--self-critical-epochs", metavar="N", type=whole, help="epochs with rewards (0)")
    add("--batch-size", metavar="N", type=whole, help="images in a step, with all captions (32)")
    add("--device", choices=DEVICES, help="where to train (auto)")
    add("--precision", choices=TRAINING_PRECISIONS, help="what to compute in (auto)")
    add("--seed", metavar="N", type=whole, help="seed of everything random (1)")
    parser.set_defaults(command=_train)


def find_recipe(name_or_path: str) -> Path:
    """Return the path of a recipe of the package, by its name, or of any file."""
    bundled = RECIPES / f"{name_or_path}.toml"
    return bundled if bundled.is_file() else Path(name_or_path)


def _train(options: dict[str, Any]) -> int:
    recipe = options.pop("recipe", None)
    known = [field.name for field in fields(TrainConfig)]
    values = read_toml(find_recipe(recipe), known) if recipe else {}
    values |= options
    for name, value in values.items():
        if isinstance(value, list):
            values[name] = tuple(value)
        elif name in SEQUENCES:  # one file, as a recipe may give it
            values[name] = (value,)
    training = TrainConfig(**dict.fromkeys(DATA, ()) | {"out": ""} | values)
    from captioner.training.processes import is_first
    from captioner.training.train import train

    with beside_a_bar():
        model = train(training)
    if is_first():
        print(f"trained: {model}")
    return ExitCode.DONE
