"""The command `captioner`. Each command is a function that adds it to the parser.

Parsing imports neither torch nor Dask; a command imports what it needs when it runs.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, TypeAlias

from captioner.errors import CaptionerError
from jobs.cli_run import add_plan, add_run
from jobs.cli_training import add_evaluate, add_train
from jobs.errors import ExitCode, JobError

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
    for add in (add_run, add_plan, _add_status, add_train, add_evaluate):
        add(commands)
    return parser


def _version() -> str:
    try:
        return version("captioner")
    except PackageNotFoundError:  # a source tree that is not installed
        return "(not installed)"


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
