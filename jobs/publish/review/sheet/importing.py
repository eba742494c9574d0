"""A spreadsheet that people filled in -> decisions, row by row."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from captioner.jobs.publish.review.item import SCHEMA, Item
from captioner.jobs.publish.review.sheet.cells import is_as_written, state_of
from captioner.jobs.publish.review.sheet.lost import has_lost_characters
from captioner.jobs.publish.review.sheet.reading import Encoding, SheetRow, read_rows
from captioner.jobs.publish.review.texts import Refused, clean_text
from captioner.jobs.rows.decided import NEEDED, decided_batches
from captioner.jobs.table.layout import OutFolder
from captioner.jobs.table.reviews import ReviewWriter, as_reviews, decisions, read_reviews
from captioner.schemas.caption_table import caption_table_schema
from captioner.schemas.review import Decision, Review

ORIGIN = "import"
COLUMNS = pa.schema(
    caption_table_schema().field(name) for name in dict.fromkeys((*SCHEMA.names, *NEEDED))
)
MOST_CHARACTERS = 32_767  # what a cell of Excel holds
WITHOUT_TEXT = (Decision.REJECTED, Decision.DECORATIVE)
Cells = Mapping[str, str]
Rows = Mapping[str, Mapping[str, Any]]


@dataclass
class Import:
    """The outcome of an import.

    `saved` counts decisions, `unchanged` the rows without a new one; `refused` has the line of each
    row that was refused, and why.
    """

    saved: int = 0
    unchanged: int = 0
    refused: list[tuple[int, str]] = field(default_factory=list)


def import_sheet(out: OutFolder, path: Path, reviewer: str) -> Import:
    """Save the decisions in a file that `write_sheet` wrote and a person filled in.

    All that fit are saved at once. A row is refused if its decision does not fit, or if its image,
    its caption or the decision about it has changed since. Raise UsageError for another file.
    """
    done = Import()
    changed = list[SheetRow]()
    for row in read_rows(path):
        if _longest(row.cells) <= MOST_CHARACTERS and is_as_written(row.cells):
            done.unchanged += 1
        else:
            changed.append(row)
    rows = _rows(out, [row.cells["image_uri"] for row in changed])
    reviews = _decided(changed, rows, done)
    if reviews:
        ReviewWriter(out, reviewer, ORIGIN).add(reviews)
    done.saved = len(reviews)
    return done


def undo_import(out: OutFolder, reviewer: str) -> int:
    """Take back the latest import that was not taken back; return how many decisions it made."""
    reviews = read_reviews(out)
    undone = pc.is_in(reviews["id"], value_set=reviews["undoes"].combine_chunks().drop_null())
    is_import = pc.equal(reviews["origin"], ORIGIN)
    is_decision = pc.not_equal(reviews["decision"], Decision.UNDONE)
    left = as_reviews(reviews.filter(pc.and_(pc.and_(is_import, is_decision), pc.invert(undone))))
    latest = [each for each in left if each.session == left[-1].session]
    if latest:
        ReviewWriter(out, reviewer, ORIGIN).undo(latest)
    return len(latest)


def _rows(out: OutFolder, uris: Iterable[str]) -> Rows:
    """Return the rows of the images with these URIs, with what was decided about them."""
    wanted = pa.array(sorted(set(uris)), pa.string())
    found = dict[str, Mapping[str, Any]]()
    if len(wanted):
        for _, rows in decided_batches(out, COLUMNS, decisions(out)):
            matching = rows.filter(pc.is_in(rows["image_uri"], value_set=wanted))
            found |= {row["image_uri"]: row for row in matching.to_pylist()}
    return found


def _decided(changed: Iterable[SheetRow], rows: Rows, done: Import) -> list[Review]:
    """Return the decisions in rows that a person changed; note the others."""
    reviews = dict[str, Review]()
    for line, cells, encoding in changed:
        try:
            row = _row_of(cells, rows)
            review = _review(cells, row)
            if _is_in_force(review, row):
                done.unchanged += 1
                continue
            _check(cells, row, reviews)
            _check_text(review, row, encoding)
            reviews[review.image_uri] = review
        except Refused as error:
            done.refused.append((line, str(error)))
    return list(reviews.values())


def _longest(cells: Cells) -> int:
    return max(map(len, cells.values()))


def _row_of(cells: Cells, rows: Rows) -> Mapping[str, Any]:
    if (longest := _longest(cells)) > MOST_CHARACTERS:
        raise Refused(f"a cell has {longest:,} characters: is a quotation mark missing?")
    row = rows.get(cells["image_uri"])
    if row is None:
        raise Refused(f"the table has no image {cells['image_uri']!r}")
    if row["caption"] is None:
        raise Refused("the image has no caption")
    if clean_text(cells["caption"]) != clean_text(row["caption"]):
        raise Refused(
            "the caption is not the table's: it is another one since, or was edited here "
            "(edit the column text)"
        )
    return row


def _review(cells: Cells, row: Mapping[str, Any]) -> Review:
    """Return what a person decided in a row.

    An edited text counts as a decision without a word in the column `decision`, and also beside
    the word "accepted".
    """
    decision = cells["decision"].strip().lower()
    text = clean_text(cells["text"])
    if decision in ("", Decision.ACCEPTED) and (text or not decision):
        decision = Decision.EDITED
    if decision in WITHOUT_TEXT and text and not is_as_written({**cells, "decision": ""}):
        raise Refused(f"the decision is {decision!r}, but the text was edited: clear one of them")
    return Item(row, None, False).review(decision, text)


def _is_in_force(review: Review, row: Mapping[str, Any]) -> bool:
    same = (review.decision, review.text) == (row["decision"], row["text"])
    return same and not row["outdated"]


def _check(cells: Cells, row: Mapping[str, Any], reviews: Mapping[str, Review]) -> None:
    """Raise Refused for a second decision about an image, or one about a former state of it."""
    if cells["image_uri"] in reviews:
        raise Refused("the image has a decision in a line above")
    if cells["version"].strip().partition("-")[2] != state_of(row):
        raise Refused("the image, or the decision about it, has changed since the file was written")


def _check_text(review: Review, row: Mapping[str, Any], encoding: Encoding) -> None:
    """Raise Refused for a text that a program damaged when it saved the file."""
    text, former = review.text or "", row["text"] or ""
    if review.decision == Decision.EDITED and has_lost_characters(text, former, encoding):
        raise Refused(f"the file lost characters ({text!r}): save it as CSV UTF-8")
