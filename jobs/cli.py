"""The command `captioner`. Each command is a function that adds it to the parser.

Parsing imports neither torch nor Dask; a command imports what it needs when it runs.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from captioner.errors import CaptionerError
from jobs.cli_training import add_evaluate, add_train
from jobs.config import DEVICES, FAILURES, STALE, load_config
from jobs.errors import ExitCode, Interrupted, JobError

if TYPE_CHECKING:
    Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    options = vars(_parser().parse_args(arguments))
    command = options.pop("command")
    try:
        return int(command(options))
    except (JobError, CaptionerError) as error:
        print(f"captioner: error: {error}", file=sys.stderr)
        return int(error.exit_code if isinstance(error, JobError) else ExitCode.USAGE)
    except KeyboardInterrupt:
        print("captioner: interrupted", file=sys.stderr)
        return int(ExitCode.INTERRUPTED)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="captioner", description="Captions for collections of photographs."
    )
    parser.add_argument("--version", action="version", version=f"captioner {_version()}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for add in (_add_run, _add_status, add_train, add_evaluate):
        add(commands)
    return parser


def _version() -> str:
    try:
        return version("captioner")
    except PackageNotFoundError:  # a source tree that is not installed
        return "(not installed)"


def _add_run(commands: "Commands") -> None:
    parser = commands.add_parser(
        "run",
        help="caption the new and changed images of a source",
        description="Caption the images of SOURCE that have no row yet in the table in OUT, or "
        "have changed since. Interrupted at any moment, the same command goes on.",
        argument_default=argparse.SUPPRESS,  # only what is given wins over the job file
    )
    add = parser.add_argument
    add(
        "source",
        metavar="SOURCE",
        nargs="?",
        help="directory, glob, manifest (or a directory of them), or S3 Inventory",
    )
    add("--out", metavar="OUT", help="folder of the caption table and its runs")
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
    add("--quiet", action="store_true", help="no progress, no summary")
    parser.set_defaults(command=_run)


def _run(options: dict[str, object]) -> int:
    from jobs.report import summary
    from jobs.run import run_job

    job_file = options.pop("job_file", None)
    config = load_config(options, job_file if isinstance(job_file, Path) else None)
    try:
        report = run_job(config)
    except Interrupted as stop:
        report = stop.report
        print("captioner: interrupted; the same command goes on from here", file=sys.stderr)
    if not config.quiet:
        print(summary(report))
    return report.exit_code


def _add_status(commands: "Commands") -> None:
    parser = commands.add_parser(
        "status", help="count the rows of a table", description="Count the rows of a table."
    )
    parser.add_argument("out", metavar="OUT", help="folder that `captioner run --out` wrote")
    parser.add_argument("--json", action="store_true", help="print a JSON object")
    parser.set_defaults(command=_status)


def _status(options: dict[str, object]) -> int:
    from jobs.report import read_status, status_text

    status = read_status(str(options["out"]))
    print(json.dumps(asdict(status), indent=2) if options["json"] else status_text(status))
    return ExitCode.DONE
