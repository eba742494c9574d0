"""The command `captioner completion`."""

import argparse
from functools import partial
from typing import TYPE_CHECKING

from captioner.jobs.errors import ExitCode

if TYPE_CHECKING:
    from captioner.jobs.cli import Commands

SHELLS = ("bash", "zsh", "fish")


def add_completion(commands: "Commands", root: argparse.ArgumentParser) -> None:
    """Add the command `completion`, for all commands of `root`."""
    parser = commands.add_parser(
        "completion",
        help="print a script that completes commands in a shell",
        description="Print a script with which a shell completes commands, options and paths.",
    )
    parser.add_argument("shell", choices=SHELLS, help="the shell that runs the script")
    parser.set_defaults(command=partial(_completion, root))


def _completion(root: argparse.ArgumentParser, options: dict[str, object]) -> int:
    import shtab

    for parser in _parsers(root):
        for action in parser._actions:
            if _takes_text(action):
                action.complete = shtab.FILE  # type: ignore[attr-defined]
    print(shtab.complete(root, str(options["shell"])))
    return ExitCode.DONE


def _parsers(root: argparse.ArgumentParser) -> list[argparse.ArgumentParser]:
    groups = [a for a in root._actions if isinstance(a, argparse._SubParsersAction)]
    return [parser for group in groups for parser in group.choices.values()]


def _takes_text(action: argparse.Action) -> bool:
    """Return whether an action takes a text, most often a path, and no number."""
    return action.nargs != 0 and not action.choices and action.metavar not in ("N", "P")
