"""The command `captioner evaluate`."""

import argparse
import json
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from captioner.errors import CaptionerError
from captioner.jobs.cli.job_options import FLAGS, add_captioner, captioner_of, positive
from captioner.jobs.cli.out import add_config
from captioner.jobs.cli.training import CAPTION_FORMATS
from captioner.jobs.errors import ExitCode, UsageError
from captioner.jobs.messages import say
from captioner.options import CaptionerOptions

if TYPE_CHECKING:
    from captioner.calibration import Calibration
    from captioner.captioner import Captioner
    from captioner.jobs.cli import Commands
    from captioner.training.data.dataset import Split
    from captioner.training.evaluation.evaluate import Confidence
    from captioner.training.evaluation.reliability import Reliability
    from captioner.training.evaluation.spoken import Spoken

FIRST = "flickr8k"


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
    add("--split", help="split of a Karpathy file, such as test")
    add("--limit", metavar="N", type=positive, help="caption N of the images, evenly spaced")
    add_captioner(parser)
    add("--batch-size", metavar="N", type=positive, help=FLAGS["batch_size"]["help"])
    _add_calibration(parser)
    add("--reviews", metavar="OUT", help="score the confidence on the decisions in OUT/reviews")
    add_config(parser)
    add("--json", action="store_true", help="print a JSON object")
    add("--plots", metavar="DIR", type=Path, help="draw reliability diagrams into this folder")
    parser.set_defaults(command=_evaluate)


def _add_calibration(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--calibrate", action="store_true", help="fit the confidence to these images, and keep it")
    add(
        "--first",
        metavar="NAME",
        help="a captioner that captions them first: score the confidence beside its captions; "
        f"with --calibrate, also fit it ({FIRST})",
    )
    add("--out", metavar="OUT", help="keep the calibration in OUT for its runs, or find it there")
    add(
        "--recalibrate",
        metavar="DIR",
        type=Path,
        help="with --reviews: fit the calibration of the checkpoint to the decisions, and write a "
        "new model directory",
    )


def _evaluate(options: dict[str, Any]) -> int:
    if options["reviews"]:
        return _evaluate_reviews(options)
    if not options["images"] or not options["captions"] or options["recalibrate"]:
        raise UsageError("give --images and --captions, or --reviews (perhaps with --recalibrate)")
    from captioner.jobs.calibrations import kept_calibration
    from captioner.training.evaluation.evaluate import evaluate
    from captioner.training.evaluation.plots import require_plots

    captioner_options = captioner_of(options)
    if options["calibrate"]:
        _require_place(options, captioner_options)
    elif options["out"]:
        values = kept_calibration(options["out"], captioner_options)
        captioner_options = replace(captioner_options, calibration=values)
    if options["plots"]:
        require_plots(options["plots"])
    spoken, confidence, calibration = _listen(options, captioner_options)
    result = evaluate(spoken, confidence)
    print(json.dumps(result.to_dict(), indent=2) if options["json"] else result)
    if calibration:
        path = _keep(options, captioner_options, calibration)
        say(f"calibrated: {path} ({calibration.data})")
    _draw(options, result.reliability)
    return ExitCode.DONE


def _require_place(options: dict[str, Any], captioner: CaptionerOptions) -> None:
    """Raise UsageError now if a calibration could not be kept later."""
    if options["out"]:
        return
    if captioner.directory is None:
        raise UsageError(
            f"{captioner.checkpoint} is no directory in which its calibration could be kept: give "
            "--out OUT, and it will be kept there for the runs of OUT"
        )
    if not os.access(captioner.directory, os.W_OK):
        raise UsageError(f"{captioner.directory} cannot be written to: give --out OUT")


def _listen(
    options: dict[str, Any], captioner_options: CaptionerOptions
) -> "tuple[Spoken, Confidence, Calibration | None]":
    from captioner.allocator import keep_freed_memory
    from captioner.loading import open_captioner
    from captioner.training.evaluation.evaluate import given_confidence
    from captioner.training.evaluation.fit_confidence import fit_confidence
    from captioner.training.evaluation.spoken import listen

    keep_freed_memory()
    split = _split_of(options)
    captioner = open_captioner(captioner_options)
    if options["plots"] and captioner.calibration is None and not options["calibrate"]:
        raise CaptionerError(
            f"{options['checkpoint']} has no calibration, so there is nothing to draw: omit --plots"
        )
    spoken = listen(captioner, split, options["batch_size"], _first(options))
    if options["calibrate"]:
        calibration, confidence = fit_confidence(spoken)
        return spoken, confidence, calibration
    return spoken, given_confidence(captioner, spoken), None


def _split_of(options: dict[str, Any]) -> "Split":
    """Return the images to caption; raise CaptionerError if these cannot be scored."""
    from captioner.training.data.dataset import load_split
    from captioner.training.evaluation.acceptability import require_stemmer
    from captioner.training.evaluation.fit_confidence import require_enough
    from captioner.training.evaluation.metrics import require_metrics

    require_metrics()
    require_stemmer()
    split = load_split(options["images"], options["captions"], options["split"])
    split = split.some(options["limit"])
    if options["calibrate"]:
        require_enough(len(split))
    return split


def _first(options: dict[str, Any]) -> "Captioner | None":
    """Return the captioner whose captions are there before; None without, or if it is the same."""
    from captioner.captioner import Captioner

    name = options["first"] or (FIRST if options["calibrate"] else None)
    if name in (None, options["checkpoint"]):
        return None
    return Captioner.load(name, device=options["device"])


def _keep(
    options: dict[str, Any], captioner: CaptionerOptions, calibration: "Calibration"
) -> object:
    from captioner.calibration import save_calibration
    from captioner.jobs.calibrations import keep_calibration

    if options["out"]:
        return keep_calibration(options["out"], captioner, calibration)
    assert captioner.directory  # see _require_place
    return save_calibration(captioner.directory, calibration)


def _draw(options: dict[str, Any], result: "Reliability | None") -> None:
    from captioner.training.evaluation.plots import draw

    if options["plots"] and result:
        for path in draw(result, options["plots"]):
            say(f"drawn: {path}")


def _evaluate_reviews(options: dict[str, Any]) -> int:
    from captioner.jobs.publish.judgements import read_judgements
    from captioner.training.evaluation.evaluate import reliability_text
    from captioner.training.evaluation.plots import require_plots
    from captioner.training.evaluation.reliability import reliability

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
    _draw(options, result)
    return ExitCode.DONE


def _recalibrate(options: dict[str, Any]) -> int:
    from captioner.calibration import read_calibration
    from captioner.jobs.publish.judgements import read_judgements
    from captioner.model_directory import find_finished
    from captioner.training.evaluation.recalibrate import recalibrate, save_recalibrated

    model = find_finished(options["checkpoint"])
    calibration = read_calibration(model)
    if calibration is None:
        raise CaptionerError(f"{model} has no calibration to fit again")
    judged = read_judgements(options["reviews"], calibration)
    fitted = recalibrate(calibration, judged.confidence, judged.acceptable)
    save_recalibrated(model, fitted, options["recalibrate"])
    print(f"recalibrated: {options['recalibrate']} ({fitted.data})")
    return ExitCode.DONE
