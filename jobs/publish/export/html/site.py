"""The pages of a site: which images of the table they show, and their missing alt attributes."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from captioner.jobs.errors import UsageError
from captioner.jobs.publish.export.changes import Change, written
from captioner.jobs.publish.export.files import read_if_there
from captioner.jobs.publish.export.html.links import NOWHERE, keys_of_image, page_url
from captioner.jobs.publish.export.html.page import Page, Picture
from captioner.jobs.publish.export.job import ExportJob, Outcome
from captioner.jobs.publish.export.locations import Locations
from captioner.jobs.publish.export.policy import Action, Unfit, Verdict, at_destination
from captioner.jobs.publish.export.record import Mark, Record

PAGES = (".html", ".htm", ".xhtml")
Match = tuple[str | None, Verdict]  # the URI of an image, and what may be written
Known = Mapping[str, Match]  # by comparable address
_OTHER_QUERY: Match = (None, Verdict(Action.SKIP))  # an image of the table has another query
_SEVERAL: Match = (
    None,
    Verdict(Action.REVIEW, reason="several images of the table have its address"),
)


def export_html(job: ExportJob, record: Record) -> Iterator[Outcome]:
    """Fill the missing alt attributes of a site's pages; yield what was done with each image."""
    folder = Path(str(job.to)).absolute()
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder of pages")
    locations = Locations(job.root or str(folder), job.base_url or NOWHERE)
    known = _known(job, locations, _shown(folder, locations))
    judged = (
        each
        for path in _pages(folder)
        for each in _judged(path, page_url(str(path), locations), record, known)
    )
    return written(judged, record, dry_run=job.dry_run)


def _pages(folder: Path) -> Iterator[Path]:
    """Yield the pages in a folder and the folders below it, without hidden folders and links."""
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(parent, name)
            if path.suffix.lower() in PAGES and not path.is_symlink():
                yield path


def _shown(folder: Path, locations: Locations) -> set[str]:
    """Return the addresses of all images on the pages: few, compared with a table."""
    shown: set[str] = set()
    for path in _pages(folder):
        content, _ = read_if_there(path)
        try:
            page = Page.read(content or b"", page_url(str(path), locations))
        except Unfit:
            continue  # it is reported when the pages are edited
        shown.update(key for picture in page.pictures for key in picture.keys)
    return shown


def _known(job: ExportJob, locations: Locations, shown: set[str]) -> Known:
    """Return the images of the table that the pages show."""
    known: dict[str, Match] = {}
    for row, verdict in job.rows():
        for key, shows_it in keys_of_image(row["image_uri"], locations):
            if key in shown:
                match = (row["image_uri"], verdict) if shows_it else _OTHER_QUERY
                is_clear = known.setdefault(key, match)[1] == match[1]
                known[key] = known[key] if is_clear else _SEVERAL
    return {key: match for key, match in known.items() if match is not _OTHER_QUERY}


def _judged(path: Path, url: str, record: Record, known: Known) -> Iterator[Change | Outcome]:
    """Yield the outcomes for the images of a page, within a change if the page has one."""
    content, version = read_if_there(path)
    try:
        page = Page.read(content or b"", url)
    except Unfit as unfit:
        yield Outcome(unfit.verdict, place=str(path))
        return
    ours = page.ours(record.marks(str(path)))
    outcomes = {
        number: outcome
        for number, picture in enumerate(page.pictures)
        if (outcome := _outcome(picture, number in ours, path, known))
    }
    texts = {
        number: outcome.verdict.text
        for number, outcome in outcomes.items()
        if outcome.verdict.action is Action.WRITE
    }
    if texts:
        mark = Mark(str(path), page.mark(texts, ours), page.mark({}, ours))
        yield Change(mark, page.edited(texts), version, list(outcomes.values()))
    else:
        yield from outcomes.values()


def _outcome(picture: Picture, is_ours: bool, path: Path, known: Known) -> Outcome | None:
    """Return what to do with an image; None if it has a text, and none in the table."""
    found = next((known[key] for key in picture.keys if key in known), None)
    if found is None:
        if picture.existing is not None:
            return None
        return Outcome(Verdict(Action.SKIP, picture.source, "not in the table"), place=str(path))
    uri, verdict = found
    if uri is None:
        verdict = replace(verdict, text=picture.source)
    verdict = at_destination(verdict, picture.existing, is_ours=is_ours)
    if picture.is_templated and verdict.action is Action.WRITE:
        verdict = replace(verdict, action=Action.KEEP, reason="the page's template decides")
    return Outcome(verdict, uri, str(path))
