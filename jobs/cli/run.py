"""The commands `captioner run` and `captioner plan`, which take the same jobs."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from captioner.jobs.config import DEVICES, FAILURES, STALE, JobConfig, load_config
from captioner.jobs.errors import ExitCode, Interrupted, UsageError

if TYPE_CHECKING:
    from captioner.jobs.cli.main import Commands


def add_run(commands: "Commands") -> None:
    """Add the command `run`."""
    parser = commands.add_parser(
        "run",
        help="caption the new and changed images of a source",
        description="Caption the images of SOURCE that have no row yet in the table in OUT, or "
        "have changed since. Interrupted at any moment, the same command goes on.",
        argument_default=argparse.SUPPRESS,  # only what is given wins over the job file
    )
    _add_job_options(parser)
    parser.add_argument("--quiet", action="store_true", help="no progress, no summary")
    parser.set_defaults(command=_run)


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
    add("--sample", metavar="N", type=int, default=64, help="images to time; 0: no estimate (64)")
    add("--json", action="store_true", default=False, help="print a JSON object")
    parser.set_defaults(command=_plan)


def _add_job_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "source",
        metavar="SOURCE",
        nargs="?",
        help="directory, glob, manifest, tar archive, Parquet of images (or a directory of them), "
        "or S3 Inventory",
    )
    add("--out", metavar="OUT", help="folder of the caption table and its runs: a path, or "
        "a URL as s3://bucket/prefix")  # fmt: skip
    add("--config", metavar="JOB.toml", type=Path, dest="job_file", help="job file; flags win")
    add("--checkpoint", metavar="NAME", help="bundled model or model directory (flickr8k)")
    add("--beam-size", metavar="N", type=int, help="beams of the search (3)")
    add("--max-characters", metavar="N", type=int, help="longest caption, with its full stop (125)")
    add("--batch-size", metavar="N", type=int, help="images at once in the network (32)")
    add("--partition-size", metavar="N", type=int, help="images of a table file, at most (500)")
    add("--workers", metavar="N", type=int, help="processes (one a core, or one a GPU)")
    add("--device", choices=DEVICES, help="where the network runs (auto)")
    add("--scheduler", metavar="ADDRESS", help="use a running Dask cluster")
    add("--min-confidence", metavar="P", type=float, help="mark captions below it for review")
    add("--target-precision", metavar="P", type=float, help="the same, with the confidence that "
        "gives the other captions this precision")  # fmt: skip
    add("--max-failures", metavar="N", help="exit 3 above this count or share, as 10 or 5%% "
        "(default: only if every image failed)")  # fmt: skip
    add("--max-bytes", metavar="N", type=int, help="read no larger image files (256 MiB)")
    add("--stale", choices=STALE, help="captions of another model or other settings (keep)")
    add("--retry-failed", metavar="KIND", nargs="*", help="try failed images again: those of these "
        f"kinds ({', '.join(FAILURES)}), or all but unreadable and too_large")  # fmt: skip
    add("--prune", action="store_true", help="remove rows of images that SOURCE no longer lists")
    add("--any-extension", action="store_true", help="take files and objects for images whatever "
        "their names end in")  # fmt: skip


def _config(options: dict[str, object]) -> JobConfig:
    job_file = options.pop("job_file", None)
    kinds = options.get("retry_failed")
    others = [kind for kind in kinds if kind not in FAILURES] if isinstance(kinds, list) else []
    if others and "source" not in options:
        raise UsageError(f"--retry-failed takes {others[0]} for a status: give SOURCE before it")
    return load_config(options, job_file if isinstance(job_file, Path) else None)


def _run(options: dict[str, object]) -> int:
    from captioner.jobs.cli.text import summary
    from captioner.jobs.run import run_job

    config = _config(options)
    try:
        report = run_job(config)
    except Interrupted as stop:
        report = stop.report
        print("captioner: interrupted; the same command goes on from here", file=sys.stderr)
    if not config.quiet:
        print(summary(report))
    return report.exit_code


def _plan(options: dict[str, object]) -> int:
    from captioner.jobs.cli.text import preview_text
    from captioner.jobs.preview import preview_job

    sample, as_json = options.pop("sample"), options.pop("json")
    if not isinstance(sample, int) or sample < 0:
        raise UsageError(f"sample must be a whole number from 0, not {sample}")
    preview = preview_job(_config(options), sample)
    print(preview.to_json() if as_json else preview_text(preview))
    return ExitCode.DONE
