"""The command `captioner review`."""

import getpass
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from captioner.jobs.cli.job_options import number, whole
from captioner.jobs.cli.out import add_out, show_in_browser
from captioner.jobs.errors import ExitCode, UsageError
from captioner.jobs.messages import how_many, printable, say

if TYPE_CHECKING:
    from argparse import _ActionsContainer as Group

    from captioner.jobs.cli import Commands
    from captioner.jobs.publish.review.queue import Scope

LOCAL = ("127.0.0.1", "localhost", "::1")
THRESHOLDS = ("min_confidence", "target_precision")
WITHOUT_PAGE = ("csv", "filled", "undo", "clear", *THRESHOLDS)
LINES = 20  # of refused rows that are printed


def add_review(commands: "Commands") -> None:
    """Add the command `review`."""
    parser = commands.add_parser(
        "review",
        help="decide about captions, in the browser or in a spreadsheet",
        description="Open a page in the browser to accept, edit or reject the captions of a table, "
        "the least certain first. Each decision is saved at once, in OUT/reviews. Ctrl-C ends it.",
    )
    add_out(parser)
    add = parser.add_argument
    add("--where", metavar="CONDITION", help='only rows that match, as in "confidence < 0.5"')
    add("--reviewer", metavar="NAME", help="who decides (the user of this machine)")
    _add_page(parser.add_argument_group("the page"))
    _add_others(parser.add_argument_group("instead of the page").add_mutually_exclusive_group())
    parser.set_defaults(command=_review)


def _add_page(group: "Group") -> None:
    add = group.add_argument
    add("--host", default=LOCAL[0], help="address to serve at (127.0.0.1)")
    add("--port", type=whole, default=0, metavar="N", help="port (any that is free)")
    add("--no-browser", action="store_true", help="print the address, do not open it")


def _add_others(group: "Group") -> None:
    add = group.add_argument
    add("--csv", metavar="FILE", type=Path, help="write what is to review")
    add("--import", metavar="FILE", type=Path, dest="filled", help="save the decisions in it")
    add("--undo", action="store_true", help="take the latest import back")
    add(
        "--min-confidence",
        metavar="P",
        type=number,
        help="mark all captions below it for review, and no others",
    )
    add(
        "--target-precision",
        metavar="P",
        type=number,
        help="the same, with a threshold from the calibration that the table records",
    )
    add("--clear", action="store_true", help="mark no caption for review")


def _review(options: dict[str, Any]) -> int:
    from captioner.jobs.publish.review.queue import scope_of
    from captioner.jobs.storage.backends.paths import out_path
    from captioner.jobs.storage.failures import job_errors
    from captioner.jobs.table.layout import OutFolder

    _check_combination(options)
    if options["clear"] or any(options[name] is not None for name in THRESHOLDS):
        return _mark(options)
    out = OutFolder(out_path(options["out"]))
    reviewer = options["reviewer"] or _user()
    try:
        with job_errors(out.root):
            scope = scope_of(out, options["where"])
            if options["csv"]:
                return _write(scope, options["csv"])
            if options["filled"]:
                return _import(scope, options["filled"], reviewer)
            if options["undo"]:
                return _undo(scope, reviewer)
            _serve(scope, reviewer, options)
    except OSError as error:
        raise UsageError(f"cannot read or write {out.root}: {error}") from error


def _check_combination(options: dict[str, Any]) -> None:
    """Raise UsageError for options that have no meaning beside the chosen one."""
    chosen = [name for name in WITHOUT_PAGE if options[name] not in (None, False)]
    of_the_page = {"host": LOCAL[0], "port": 0, "no_browser": False}
    idle = [name for name, default in of_the_page.items() if options[name] != default]
    if options["where"] and chosen and chosen != ["csv"]:
        idle.append("where")
    if chosen and idle:
        option, other = (name.replace("_", "-") for name in (idle[0], chosen[0]))
        raise UsageError(f"--{option} has no meaning with --{other.replace('filled', 'import')}")


def _mark(options: dict[str, Any]) -> int:
    from captioner.jobs.cli.text import status_text
    from captioner.jobs.publish.marking import mark_table
    from captioner.jobs.table.status import read_status

    for name in THRESHOLDS:
        if options[name] is not None and not 0 <= options[name] <= 1:
            raise UsageError(f"--{name.replace('_', '-')} must be from 0 to 1, not {options[name]}")
    done = mark_table(options["out"], **{name: options[name] for name in THRESHOLDS})
    if done.threshold.target_precision is not None:
        say(str(done.threshold))
    print(f"marked     {how_many(done.rows, 'row')} again")
    print(status_text(read_status(options["out"])))
    return ExitCode.DONE


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # no name for this user's number
        return "unknown"


def _serve(scope: "Scope", reviewer: str, options: dict[str, Any]) -> NoReturn:
    from captioner.jobs.publish.review.page.server import review_in_browser

    host = options["host"]
    if host not in LOCAL:
        say("anyone on the network who knows the address can see the images and decide")

    def opened(url: str) -> None:
        print(f"Review at {url}\nCtrl-C ends it; every decision is saved at once.", flush=True)
        if not options["no_browser"]:
            threading.Thread(target=show_in_browser, args=(url,), daemon=True).start()

    saved = review_in_browser(scope, reviewer, host, options["port"], opened)
    print(f"\n{how_many(saved, 'decision')} saved in {scope.out.reviews}", flush=True)
    # Threads may still read from a silent store. Python would stop them inside C++ code, which
    # aborts the process.
    os._exit(ExitCode.DONE)


def _write(scope: "Scope", path: Path) -> int:
    from captioner.jobs.publish.review.sheet.write import write_sheet

    rows = write_sheet(scope, path)
    print(f"{how_many(rows, 'row')} to review in {path}" if rows else "nothing to review")
    return ExitCode.DONE


def _import(scope: "Scope", path: Path, reviewer: str) -> int:
    from captioner.jobs.publish.review.sheet.importing import import_sheet

    done = import_sheet(scope.out, path, reviewer)
    for line, reason in done.refused[:LINES]:
        say(printable(f"{path}, line {line}: {reason}"))
    if len(done.refused) > LINES:
        say(f"and {how_many(len(done.refused) - LINES, 'more row')}")
    print(
        f"{how_many(done.saved, 'decision')} saved, "
        f"{how_many(done.unchanged, 'row')} without a new one, {len(done.refused):,} refused"
    )
    return ExitCode.TOO_MANY_FAILURES if done.refused else ExitCode.DONE


def _undo(scope: "Scope", reviewer: str) -> int:
    from captioner.jobs.publish.review.sheet.importing import undo_import

    taken_back = undo_import(scope.out, reviewer)
    done = f"{how_many(taken_back, 'decision')} of the latest import taken back"
    print(done if taken_back else "there is no import to take back")
    return ExitCode.DONE
