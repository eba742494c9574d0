"""The commands `captioner run` and `captioner plan`, which take the same jobs."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from captioner.jobs.config import JobConfig, load_config
from captioner.jobs.config_values import DEVICES, FAILURES, STALE
from captioner.jobs.errors import ExitCode, Interrupted, UsageError

if TYPE_CHECKING:
    from captioner.jobs.cli import Commands
    from captioner.schemas.job_report import JobReport

SOURCE_HELP = (
    "directory, glob, image, manifest, tar archive, Parquet of images (or a directory of them), S3 "
    "Inventory, or - for a manifest on standard input; several are one collection"
)
FLAGS: dict[str, dict[str, Any]] = {  # by field of JobConfig
    "checkpoint": {
        "help": "bundled model, model directory, hf:NAME_OR_DIRECTORY of Hugging Face, or "
        "openai:MODEL of a server",
        "metavar": "NAME",
    },
    "language": {"help": "of captions, as ISO 639-1 has it", "metavar": "CODE"},
    "prompt": {"help": "the question to an hf: or openai: captioner", "metavar": "TEXT"},
    "trust_remote_code": {"help": "run code that an hf: model brings", "action": "store_true"},
    "send_pixels": {"help": "longer side of images for a server", "metavar": "N", "type": int},
    "beam_size": {"help": "beams of the search", "metavar": "N", "type": int},
    "max_characters": {"help": "longest caption, with full stop", "metavar": "N", "type": int},
    "batch_size": {"help": "images per pass through the network", "metavar": "N", "type": int},
    "partition_size": {"help": "images in one file, at most", "metavar": "N", "type": int},
    "workers": {"help": "processes (one per core or GPU)", "metavar": "N", "type": int},
    "device": {"help": "where the network runs", "choices": DEVICES},
    "scheduler": {"help": "use the workers of a running Dask cluster", "metavar": "ADDRESS"},
    "min_confidence": {"help": "mark captions below it for review", "metavar": "P", "type": float},
    "target_precision": {
        "help": "mark captions for review so that, by the model's calibration, this share of the "
        "others is acceptable",
        "metavar": "P",
        "type": float,
    },
    "max_failures": {
        "help": "exit with 3 above this count or share of failed images, such as 10 or 5%% "
        "(default: only if all fail)",
        "metavar": "N",
    },
    "max_bytes": {"help": "largest image file to read, in bytes", "metavar": "N", "type": int},
    "limit": {"help": "caption at most N images", "metavar": "N", "type": int},
    "stale": {"help": "captions by another model or with other settings", "choices": STALE},
    "retry_failed": {
        "help": f"caption failed images again: those with these statuses ({', '.join(FAILURES)}), "
        "or, if none is named, all but unreadable, too_large and rejected",
        "metavar": "STATUS",
        "nargs": "*",
    },
    "force": {"help": "caption images again that have a row", "action": "store_true"},
    "only": {
        "help": "of SOURCE, only the images in this file, one path or URL a line; - for standard "
        "input",
        "metavar": "LIST",
    },
    "prune": {"help": "remove rows of images that SOURCE no longer lists", "action": "store_true"},
    "exclude": {
        "help": "leave out files and folders by name (raw) or by path below SOURCE (2024/**/raw/), "
        "in addition to thumbnails, previews and deleted files; '' includes those",
        "metavar": "GLOB",
        "action": "append",
    },
    "any_extension": {"help": "count every file and object as an image", "action": "store_true"},
    "uri_column": {"help": "column of a manifest with the images", "metavar": "NAME"},
    "image_column": {"help": "column of a Parquet file with the images", "metavar": "NAME"},
    "redo_below": {
        "help": "second opinion: caption only images again whose caption is less certain",
        "metavar": "P",
        "type": float,
    },
    "redo_share": {
        "help": "second opinion: caption only the least certain share again, such as 20%%",
        "metavar": "SHARE",
    },
    "where": {"help": "second opinion: only for rows that match", "metavar": "CONDITION"},
    "max_requests": {"help": "requests to a server, at most", "metavar": "N", "type": int},
    "max_cost": {
        "help": "cost of a server, at most, by the prices in the job file",
        "metavar": "N",
        "type": float,
    },
    "embeddings": {
        "help": "also write what each image looks like, for `captioner search --like` and "
        "`captioner duplicates`",
        "action": "store_true",
    },
}
OUT_HELP = "folder of the caption table and its runs: a path, or a URL such as s3://bucket/prefix"


def add_run(commands: "Commands") -> None:
    """Add the command `run`."""
    parser = commands.add_parser(
        "run",
        help="caption the new and changed images of a source",
        description="Caption the images of SOURCE that have no row yet in the table in OUT, or "
        "have changed since. The same command continues an interrupted run.",
        argument_default=argparse.SUPPRESS,  # only what is given overrides the job file
    )
    _add_job_options(parser)
    parser.add_argument("--quiet", action="store_true", help="no progress, no summary")
    parser.set_defaults(command=_run, take_rest=_take_sources)


def add_plan(commands: "Commands") -> None:
    """Add the command `plan`."""
    parser = commands.add_parser(
        "plan",
        help="say what a run would do, and how long it would take",
        description="Say what `captioner run` with the same options would do, and estimate from "
        "some of the images how long it would take. Nothing is written to OUT.",
        argument_default=argparse.SUPPRESS,
    )
    _add_job_options(parser)
    add = parser.add_argument
    sample = "images to time; 0 for none (64, or 4 with a server, which is asked about them)"
    add("--sample", metavar="N", type=int, default=None, help=sample)
    add("--json", action="store_true", default=False, help="print a JSON object")
    parser.set_defaults(command=_plan, take_rest=_take_sources)


def _add_job_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("source", metavar="SOURCE", nargs="*", help=SOURCE_HELP)
    add("--out", metavar="OUT", help=OUT_HELP)
    add("--config", metavar="JOB.toml", type=Path, dest="job_file", help="job file; flags win")
    for option in fields(JobConfig):
        if flag := FLAGS.get(option.name):
            has_default = option.default is not None and option.default is not False
            default = f" ({option.default})" if has_default else ""
            name = f"--{option.name.replace('_', '-')}"
            add(name, **{**flag, "help": flag["help"] + default})


def _take_sources(options: dict[str, Any], rest: Sequence[str]) -> None:
    """Take further SOURCEs from after an option."""
    options["source"] = [*options.get("source", []), *rest]


def _config(options: dict[str, object]) -> JobConfig:
    job_file = options.pop("job_file", None)
    kinds = options.get("retry_failed")
    others = [kind for kind in kinds if kind not in FAILURES] if isinstance(kinds, list) else []
    if others and "source" not in options:
        raise UsageError(f"--retry-failed: {others[0]} is not a status; put SOURCE before it")
    sources = options.get("source")
    if isinstance(sources, list) and len(sources) == 1:
        options["source"] = sources[0]
    return load_config(options, job_file if isinstance(job_file, Path) else None)


def _run(options: dict[str, object]) -> int:
    from captioner.jobs.run import run_passes

    config = _config(options)
    code: int = ExitCode.DONE
    try:
        for title, report in zip(_titles(config), run_passes(config), strict=False):
            if title and not config.quiet:
                print(title)
            told = _tell(report, config)
            code = code or told
    except Interrupted as stop:
        print("captioner: interrupted; the same command continues from here", file=sys.stderr)
        return _tell(stop.report, config)
    return code


def _titles(config: JobConfig) -> Sequence[str]:
    """Return what to print before the summary of each pass."""
    return ("first pass", "\nsecond pass") if config.second else ("",)


def _tell(report: "JobReport", config: JobConfig) -> int:
    """Print what a run did; return its exit code."""
    from captioner.jobs.cli.text import closing, printable, summary, too_many_failures

    if not config.quiet:
        print(summary(report))
        if sys.stdout.isatty() and not report.error:
            print(closing(report, str(config.out)))
    if report.exit_code == ExitCode.TOO_MANY_FAILURES:
        print(f"captioner: {too_many_failures(report, config.max_failures)}", file=sys.stderr)
    if report.stopped:
        left = f"{report.postponed:,} images are left"
        print(f"captioner: {printable(report.stopped)}; {left}", file=sys.stderr)
    return report.exit_code


def _plan(options: dict[str, object]) -> int:
    from captioner.jobs.cli.plan_text import preview_text
    from captioner.jobs.preview import preview_job

    sample, as_json = options.pop("sample"), options.pop("json")
    if sample is not None and (not isinstance(sample, int) or sample < 0):
        raise UsageError(f"sample must be 0 or a whole number above it, not {sample}")
    preview = preview_job(_config(options), sample)
    print(preview.to_json() if as_json else preview_text(preview))
    return ExitCode.DONE
