"""The command `captioner report`."""

from pathlib import Path
from typing import TYPE_CHECKING

from captioner.jobs.cli.out import add_out, show_in_browser
from captioner.jobs.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from captioner.jobs.cli import Commands


def add_report(commands: "Commands") -> None:
    """Add the command `report`."""
    parser = commands.add_parser(
        "report",
        help="make a page about a table, for people",
        description="Make a page about the whole table in OUT: one HTML file that needs no network "
        "and no other file, with numbers, charts, failures, people's decisions and pictures. Every "
        "run leaves such a page about itself, OUT/runs/<run_id>/report.html.",
    )
    add_out(parser)
    add = parser.add_argument
    add("--to", metavar="FILE", type=Path, help="file to write (OUT/report.html)")
    add("--open", action="store_true", help="show it in the browser")
    parser.set_defaults(command=_report)


def _report(options: dict[str, object]) -> int:
    from captioner.jobs.publish.report.write import write_table_report

    out, to = str(options["out"]), options["to"]
    path = write_table_report(out, to if isinstance(to, Path) else None)
    print(path)
    if options["open"]:
        if not isinstance(path, Path):
            raise UsageError(f"{path} is not on this machine: add --to FILE to open the report")
        show_in_browser(path.as_uri())
    return ExitCode.DONE
