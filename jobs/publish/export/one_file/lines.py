"""A file with a line for each image, written as the rows are read."""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from captioner.jobs.publish.export.files import new_file
from captioner.jobs.publish.export.job import ExportJob, Outcome, Row
from captioner.jobs.publish.export.policy import Action, Unfit, Verdict
from captioner.jobs.publish.export.record import Record
from captioner.jobs.storage.backends.paths import OutPath


@dataclass(frozen=True)
class Lines:
    """A format: what `line` returns for each row that is written, between `begin` and `end`.

    `line` may raise Unfit. `columns` are those that it needs.
    """

    line: Callable[[Row], str]
    columns: Sequence[str]
    begin: str = ""
    between: str = ""
    end: str = ""
    decorative: bool = True


def export_lines(
    job: ExportJob, record: Record, lines: Lines, path: OutPath | None
) -> Iterator[Outcome]:
    """Write a file, or to standard output without a path; yield what was not written, then it."""
    if path is None:
        yield from _write(job, lines, _ignore if job.dry_run else sys.stdout.write)
        return
    with new_file(path, record, dry_run=job.dry_run) as file:
        written = 0
        for outcome in _write(job, lines, lambda text: file.write(text.encode())):
            if outcome.verdict.action is Action.WRITE:
                written = outcome.images
            else:
                yield outcome
        action = file.finish()
    yield Outcome(Verdict(action), place=str(path), images=written, diff=file.diff)


def _write(job: ExportJob, lines: Lines, write: Callable[[str], object]) -> Iterator[Outcome]:
    """Write the lines; yield what was not written, and in the end the number of images written."""
    write(lines.begin)
    written = 0
    for row, verdict in job.rows(lines.columns, decorative=lines.decorative):
        if verdict.action is Action.WRITE:
            try:
                line = lines.line({**row, "text": verdict.text})
            except Unfit as unfit:
                verdict = replace(unfit.verdict, text=verdict.text)
            else:
                write(lines.between + line if written else line)
                written += 1
                continue
        yield Outcome(verdict, row["image_uri"])
    write(lines.end)
    yield Outcome(Verdict(Action.WRITE), images=written)


def _ignore(_text: str) -> None:
    pass


def as_json(value: object) -> str:
    """Return a value as JSON on one line; times in ISO 8601, bytes as text."""
    return json.dumps(value, ensure_ascii=False, default=_as_text)


def _as_text(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
