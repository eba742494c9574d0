"""The command `captioner`; each subcommand has a function that adds it to the parser.

A command imports what it needs when it runs, so that parsing imports neither torch nor Dask.
"""

import argparse
import json
import os
import select
import sys
import traceback
from collections.abc import Sequence
from dataclasses import asdict
from difflib import get_close_matches
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, NoReturn

from captioner.errors import CaptionerError
from captioner.jobs.cli.caption import add_caption
from captioner.jobs.cli.completion import add_completion
from captioner.jobs.cli.evaluate import add_evaluate
from captioner.jobs.cli.export import add_export
from captioner.jobs.cli.failing import failing, lack_of, reason_of, wanted
from captioner.jobs.cli.find import add_duplicates, add_index, add_search
from captioner.jobs.cli.job_options import size
from captioner.jobs.cli.out import add_out, configure_for
from captioner.jobs.cli.quantize import add_quantize
from captioner.jobs.cli.report import add_report
from captioner.jobs.cli.review import add_review
from captioner.jobs.cli.run import add_plan, add_run
from captioner.jobs.cli.stdout import checked_stdout
from captioner.jobs.cli.training import add_train
from captioner.jobs.cli.verify import add_verify
from captioner.jobs.errors import ExitCode, JobError, UsageError, exit_code_of
from captioner.jobs.messages import is_json, on_stderr, printable, say, say_error, warn
from captioner.jobs.sigterm import sigterm_interrupts
from captioner.jobs.storage.signatures import without_signatures

if TYPE_CHECKING:
    from captioner.jobs.cli import Commands


_REQUIRED = "the following arguments are required: "  # as argparse says


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    words = sys.argv[1:] if arguments is None else [*arguments]
    log_format, as_json = wanted(words)
    try:
        with sigterm_interrupts(), on_stderr(log_format), checked_stdout():
            return _main(words, as_json)
    except BrokenPipeError:
        if not _is_unread(sys.stdout.fileno()):
            raise  # of another pipe or connection
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is still buffered
        return ExitCode.BROKEN_PIPE


def _main(words: Sequence[str], as_json: bool) -> int:
    try:
        try:
            with failing(words, as_json):
                return _command(words)
        finally:
            sys.stdout.flush()  # not only when Python exits, where no error can be caught
    except (JobError, CaptionerError) as error:
        code = exit_code_of(error)
        say_error(reason_of(error, words), code)
        return code
    except KeyboardInterrupt as stop:
        code = exit_code_of(stop)
        warn("interrupted", "interrupted", {"exit_code": code})
        return code
    except Exception as fault:
        if isinstance(fault, BrokenPipeError):
            raise
        _say_fault(fault, words)
        return int(ExitCode.FAULT)


def _say_fault(fault: Exception, words: Sequence[str]) -> None:
    """Say what this machine lacks or, if that is not known, show the traceback."""
    trace = without_signatures(traceback.format_exc())
    if is_json() or lack_of(fault):
        facts = {} if lack_of(fault) else {"traceback": trace}
        say_error(reason_of(fault, words), int(ExitCode.FAULT), facts)
    else:
        print(trace, end="", file=sys.stderr)


def _command(words: Sequence[str]) -> int:
    options = _options(words)
    command = options.pop("command")
    if "storage_options_in" in options:
        out = options.get("out") or options.get("reviews")
        configure_for(options.pop("storage_options_in"), out)
    return int(command(options))


def _options(words: Sequence[str]) -> dict[str, Any]:
    """Parse the command line, in which options may stand between SOURCEs, and QUERY and OUT.

    argparse takes all positional arguments at the first of them; what comes later is in `rest`.
    """
    parser = _parser()
    known, rest = parser.parse_known_args(words)
    options = vars(known)
    take_rest, own = options.pop("take_rest", None), options.pop("parser")
    if unknown := next((word for word in rest if word.startswith("-")), None):
        own.error(f"there is no option {unknown}{_nearest(unknown, own)}")
    if rest and take_rest is None:
        own.error(f"unexpected: {' '.join(rest)}")
    if rest:
        take_rest(options, rest)
    return options


def _nearest(unknown: str, parser: argparse.ArgumentParser) -> str:
    known = [option for action in parser._actions for option in action.option_strings]
    found = get_close_matches(unknown.partition("=")[0], known, n=1)
    return f" (did you mean {found[0]}?)" if found else ""


def _is_unread(file: int) -> bool:
    """Return whether a file is a pipe whose reader has gone, as after `| head`."""
    poll = select.poll()
    poll.register(file, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


class _Parser(argparse.ArgumentParser):
    """A parser that leaves its errors to `main`.

    Options are given in full: what is short for one today may be short for another tomorrow.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, allow_abbrev=False)
        self.set_defaults(parser=self)

    def error(self, message: str) -> NoReturn:
        what = message.removeprefix("argument ").replace(_REQUIRED, "missing: ")
        raise UsageError(f"{what}; see `{self.prog} --help`")


def _parser() -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = _Parser(
        prog="captioner", description="Captions for collections of photographs."
    )
    parser.add_argument("--version", action="version", version=f"captioner {_version()}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for add in (
        *(add_run, add_plan, _add_status, add_report, add_review, _add_compact, add_verify),
        *(add_caption, add_index, add_search, add_duplicates),
        *(add_export, add_train, add_quantize, add_evaluate),
    ):
        add(commands)
    add_completion(commands, parser)
    return parser


def _version() -> str:
    try:
        return version("captioner")
    except PackageNotFoundError:  # a source tree that is not installed
        return "(not installed)"


def _add_status(commands: "Commands") -> None:
    parser = commands.add_parser(
        "status",
        help="count the rows of a table",
        description="Count the rows of a table, or list the images without a caption.",
    )
    add_out(parser)
    add = parser.add_argument
    add("--failed", action="store_true", help="list the images without a caption, and why")
    add("--json", action="store_true", help="print a JSON object; with --failed, one a line")
    parser.set_defaults(command=_status)


def _status(options: dict[str, object]) -> int:
    from captioner.jobs.cli.text import status_text
    from captioner.jobs.table.status import read_status

    out, as_json = str(options["out"]), options["json"]
    if options["failed"]:
        return _failures(out, as_json=bool(as_json))
    status = read_status(out)
    print(json.dumps(asdict(status), indent=2) if as_json else status_text(status))
    return ExitCode.DONE


def _failures(out: str, *, as_json: bool) -> int:
    from captioner.jobs.table.failures import read_failures

    is_any = False
    for failure in read_failures(out):
        is_any = True
        line = (failure.status, failure.image_uri, " ".join((failure.error or "").split()))
        print(json.dumps(asdict(failure)) if as_json else printable("\t".join(line)))
    if not is_any:
        say("every image has a caption")
    return ExitCode.DONE


def _add_compact(commands: "Commands") -> None:
    parser = commands.add_parser(
        "compact",
        help="merge the small files of a table",
        description="Merge the small files of a table into large ones, and remove rows of images "
        "that have a later row. Others may read the table meanwhile. After an interruption at any "
        "moment, the next compact or run makes the table whole.",
        argument_default=argparse.SUPPRESS,
    )
    add_out(parser)
    parser.add_argument(
        "--target-bytes",
        metavar="N",
        type=size,
        help="size of a merged file (128MB); files of at least half of it stay as they are",
    )
    parser.add_argument("--quiet", action="store_true", help="no progress, no summary")
    parser.set_defaults(command=_compact)


def _compact(options: dict[str, Any]) -> int:
    from captioner.jobs.cli.text import compaction_text
    from captioner.jobs.table.compaction.compact import compact

    done = compact(**options)
    if not options.get("quiet"):
        print(compaction_text(done))
    return ExitCode.DONE
