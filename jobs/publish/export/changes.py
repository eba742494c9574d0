"""Changes of single files, recorded and written in batches."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from captioner.jobs.publish.export.files import remove_leftovers, replace_file, usage_errors
from captioner.jobs.publish.export.job import Outcome
from captioner.jobs.publish.export.record import Mark, Record

_BATCH = 200  # files that are recorded together


@dataclass(frozen=True)
class Change:
    """The new content of the file at a mark's place, whose version is known, None if it is new."""

    mark: Mark
    content: bytes
    version: str | None
    outcomes: Sequence[Outcome]


def written(
    judged: Iterable[Change | Outcome], record: Record, *, dry_run: bool
) -> Iterator[Outcome]:
    """Write the changed files, unless it is a dry run; yield the outcomes of all."""
    waiting: list[Change] = []
    for each in judged if dry_run else _tidied(judged):
        if isinstance(each, Outcome):
            yield each
        elif dry_run:
            yield from each.outcomes
        else:
            waiting.append(each)
        if len(waiting) == _BATCH:
            yield from _write(waiting, record)
            waiting = []
    yield from _write(waiting, record)


def _tidied(judged: Iterable[Change | Outcome]) -> Iterator[Change | Outcome]:
    """Yield the same, after what killed exports left in a folder is removed."""
    tidy = set[Path]()
    for each in judged:
        place = each.mark.place if isinstance(each, Change) else each.place
        folder = Path(place).parent if place else None
        if folder and folder not in tidy:
            remove_leftovers(folder)
            tidy.add(folder)
        yield each


def _write(changes: Sequence[Change], record: Record) -> Iterator[Outcome]:
    with record.writing([change.mark for change in changes]):
        for change in changes:
            with usage_errors(change.mark.place):
                replace_file(Path(change.mark.place), change.content, change.version)
    for change in changes:
        yield from change.outcomes
