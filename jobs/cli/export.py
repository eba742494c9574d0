"""The command `captioner export`."""

import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, TextIO

from captioner.jobs.cli.job_options import whole
from captioner.jobs.cli.out import add_out
from captioner.jobs.errors import ExitCode
from captioner.jobs.messages import how_many, printable
from captioner.jobs.publish.export.formats import FORMATS

if TYPE_CHECKING:
    from captioner.jobs.cli import Commands
    from captioner.jobs.publish.export.job import ExportJob, Outcome

_SIGNS = {"write": "+", "review": "?", "keep": "?"}  # before a text in a dry run
_REASONS = 4  # that the summary names for an action


def add_export(commands: "Commands") -> None:
    """Add the command `export`."""
    parser = commands.add_parser(
        "export",
        help="write the texts where people use them",
        description="Write the texts of a table, people's before captions, in a format. A text "
        "that a person wrote at the destination stays; images to review are left out.",
    )
    add_out(parser)
    add = parser.add_argument
    add("--format", required=True, choices=FORMATS, help="what to write")
    add("--to", metavar="PATH", help="file, or folder of pages, images or archives to write to")
    add("--root", metavar="FOLDER", help="folder or URL that paths of images are relative to")
    add("--base-url", metavar="URL", help="URL of --root on the web")
    add("--columns", metavar="A,B", help="columns to write, separated by commas")
    add("--where", metavar="CONDITION", help='only rows that match, as in "confidence > 0.8"')
    add("--max-characters", metavar="N", type=whole, help="longest text; more is to review (125)")
    add("--index", metavar="NAME", help="index of OpenSearch (captions)")
    add("--dry-run", action="store_true", help="say what would change; write nothing")
    parser.set_defaults(command=_export)


def _export(options: dict[str, Any]) -> int:
    from captioner.jobs.publish.export.export import export

    job = _job(options)
    outcomes: Iterable[Outcome] = export(job)
    if job.dry_run:
        outcomes = _shown(outcomes)
    print("\n".join(_summary(outcomes)), file=_people(job))
    return ExitCode.DONE


def _job(options: dict[str, Any]) -> "ExportJob":
    from captioner.jobs.publish.export.job import ExportJob
    from captioner.jobs.storage.backends.paths import out_path
    from captioner.jobs.table.layout import OutFolder

    out, columns = options.pop("out"), options.pop("columns")
    given = {name: value for name, value in options.items() if value is not None}
    names = columns and [name.strip() for name in columns.split(",")]
    return ExportJob(OutFolder(out_path(out)), columns=names, **given)


def _people(job: "ExportJob") -> TextIO:
    """Return where to write what people read: not among the texts."""
    return sys.stderr if job.to_stdout and not job.dry_run else sys.stdout


def _shown(outcomes: Iterable["Outcome"]) -> Iterator["Outcome"]:
    """Print every outcome but those of texts that are there already."""
    for outcome in outcomes:
        if outcome.verdict.action != "unchanged":
            print(*map(_printable, _lines(outcome)), sep="\n")
        yield outcome


def _lines(outcome: "Outcome") -> Iterator[str]:
    verdict = outcome.verdict
    parts = [outcome.image_uri, outcome.place]
    where = " in ".join(part for part in parts if part) or "standard output"
    reason = f": {verdict.reason}" if verdict.reason else ""
    images = f" ({how_many(outcome.images, 'image')})" if outcome.image_uri is None else ""
    yield f"{verdict.action:<9} {where}{images}{reason}"
    if verdict.former is not None:
        yield f"  - {verdict.former}" if verdict.action == "write" else f"  = {verdict.former}"
    if verdict.text or (verdict.action == "write" and outcome.image_uri):
        yield f"  {_SIGNS.get(verdict.action, ' ')} {verdict.text}"
    yield from outcome.diff


def _printable(line: str) -> str:
    """Return a line that any terminal can show, whatever a file's name is, and what is in it."""
    encoding = sys.stdout.encoding
    return printable(line).encode(encoding, "backslashreplace").decode(encoding)


def _summary(outcomes: Iterable["Outcome"]) -> Iterator[str]:
    """Yield a line for each action: how many images, and the reasons."""
    reasons: dict[str, Counter[str]] = {}
    for outcome in outcomes:
        of_action = reasons.setdefault(outcome.verdict.action, Counter())
        of_action[outcome.verdict.reason] += outcome.images
    for action in ("write", "unchanged", "keep", "review", "skip"):
        counts = reasons.get(action, Counter())
        most = [f"{n:,} {reason}" for reason, n in counts.most_common(_REASONS) if reason and n]
        why = f" ({', '.join(most)})" if most else ""
        yield f"{action:<9} {counts.total():>9,}{why}"
