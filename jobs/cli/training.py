"""The commands `captioner train` and `captioner evaluate`."""

import argparse
import json
import sys
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from captioner.errors import CaptionerError
from captioner.jobs.cli.out import add_config
from captioner.jobs.config_values import DEVICES
from captioner.jobs.errors import ExitCode, UsageError
from captioner.jobs.toml_file import read_toml
from captioner.training import config
from captioner.training.config import DATA, SEQUENCES, TrainConfig

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
    add("--decoder-epochs", metavar="N", type=int, help="epochs of the decoder alone (8)")
    add("--finetune-epochs", metavar="N", type=int, help="epochs of encoder and decoder (8)")
    add("--self-critical-epochs", metavar="N", type=int, help="epochs with rewards (0)")
    add("--batch-size", metavar="N", type=int, help="images in a step, with all captions (32)")
    add("--device", choices=DEVICES, help="where to train (auto)")
    add("--seed", metavar="N", type=int, help="seed of everything random (1)")
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
    from captioner.training.train import train

    print(f"trained: {train(training)}")
    return ExitCode.DONE


def add_evaluate(commands: "Commands") -> None:
    parser = commands.add_parser(
        "evaluate",
        help="score a captioner on captioned images, or its confidence on reviewed ones",
        description="Caption images that people have captioned, and score the captions. Or, with "
        "--reviews, score the confidence of captions that people have reviewed.",
    )
    add = parser.add_argument
    add("--images", metavar="DIR_OR_TAR", nargs="+", type=Path, help="captioned images")
    add("--captions", metavar="FILE", nargs="+", type=Path, help=CAPTION_FORMATS)
    add("--reviews", metavar="OUT", help="score the confidence on the decisions in OUT/reviews")
    add_config(parser)
    add(
        "--recalibrate",
        metavar="DIR",
        type=Path,
        help="with --reviews: fit the calibration of the checkpoint to the decisions, and write a "
        "new model directory",
    )
    add("--split", help="split of a Karpathy file, such as test")
    add("--checkpoint", default="flickr8k", metavar="NAME", help="bundled model or directory")
    add("--beam-size", default=3, metavar="N", type=_positive, help="beams of the search (3)")
    add("--batch-size", default=32, metavar="N", type=_positive, help="images per pass (32)")
    add("--device", default="auto", choices=DEVICES, help="where the network runs (auto)")
    add("--json", action="store_true", help="print a JSON object")
    add("--plots", metavar="DIR", type=Path, help="draw reliability diagrams into this folder")
    parser.set_defaults(command=_evaluate)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number above 0, not {text!r}")
    return int(text)


def _evaluate(options: dict[str, Any]) -> int:
    if options["reviews"]:
        return _evaluate_reviews(options)
    if not options["images"] or not options["captions"] or options["recalibrate"]:
        raise UsageError("give --images and --captions, or --reviews (perhaps with --recalibrate)")
    from captioner import SearchOptions
    from captioner.allocator import keep_freed_memory
    from captioner.lstm_captioner import LstmCaptioner
    from captioner.options import CaptionerOptions
    from captioner.training.dataset import load_split
    from captioner.training.evaluate import evaluate
    from captioner.training.plots import draw, require_plots

    keep_freed_memory()
    if options["plots"]:
        require_plots(options["plots"])
    split = load_split(options["images"], options["captions"], options["split"])
    search = SearchOptions(beam_size=options["beam_size"])
    captioner = LstmCaptioner.open(
        CaptionerOptions(options["checkpoint"], options["device"], search)
    )
    if options["plots"] and captioner.calibration is None:
        raise CaptionerError(
            f"{options['checkpoint']} has no calibration, so there is nothing to draw: omit --plots"
        )
    result = evaluate(captioner, split, options["batch_size"])
    print(json.dumps(result.to_dict(), indent=2) if options["json"] else result)
    if options["plots"] and result.reliability:
        for path in draw(result.reliability, options["plots"]):
            print(f"drawn: {path}", file=sys.stderr)
    return ExitCode.DONE


def _evaluate_reviews(options: dict[str, Any]) -> int:
    from captioner.jobs.publish.judgements import read_judgements
    from captioner.training.evaluate import reliability_text
    from captioner.training.plots import draw, require_plots
    from captioner.training.reliability import reliability

    if options["images"] or options["captions"]:
        raise UsageError("give --images and --captions, or --reviews, but not both")
    if options["recalibrate"]:
        return _recalibrate(options)
    if options["plots"]:
        require_plots(options["plots"])
    judged = read_judgements(options["reviews"])
    result = reliability(judged.confidence, judged.acceptable)
    values = {"captioners": judged.captioners, "captions": len(judged.confidence)}
    print(
        json.dumps({**values, "reliability": asdict(result)}, indent=2)
        if options["json"]
        else reliability_text({**values, "captioners": ", ".join(judged.captioners)}, result)
    )
    if options["plots"]:
        for path in draw(result, options["plots"]):
            print(f"drawn: {path}", file=sys.stderr)
    return ExitCode.DONE


def _recalibrate(options: dict[str, Any]) -> int:
    from captioner.calibration import read_calibration
    from captioner.jobs.publish.judgements import read_judgements
    from captioner.model_directory import find_checkpoint
    from captioner.training.recalibrate import recalibrate, save_recalibrated

    model = find_checkpoint(options["checkpoint"])
    calibration = read_calibration(model)
    if calibration is None:
        raise CaptionerError(f"{model} has no calibration to fit again")
    judged = read_judgements(options["reviews"], calibration)
    fitted = recalibrate(calibration, judged.confidence, judged.acceptable)
    save_recalibrated(model, fitted, options["recalibrate"])
    print(f"recalibrated: {options['recalibrate']} ({fitted.data})")
    return ExitCode.DONE
