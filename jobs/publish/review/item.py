"""An image to decide about: its row, what was decided before, and how a page shows it."""

import math
import re
from bisect import bisect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property, partial
from hashlib import blake2b
from typing import Any, TypeAlias

import pyarrow as pa

from captioner.jobs.errors import TemporaryError
from captioner.jobs.publish.review.queue import Queue, hash_of
from captioner.jobs.publish.review.texts import MAX_TEXT, verdict
from captioner.jobs.rows.decided import plain_table
from captioner.jobs.storage.backends.paths import OutPath
from captioner.jobs.storage.uris import split_chain
from captioner.jobs.table.read import closing, open_file, readable
from captioner.jobs.table.reviews import as_reviews
from captioner.schemas.caption_table import WordConfidence, caption_table_schema
from captioner.schemas.review import Review

Words: TypeAlias = list[tuple[str, float | None]]

CHOICES = 9  # alternatives with a key
DOUBTFUL = 0.5  # the confidence below which a word is marked
IMPROBABLE = 0.15  # the same for its probability in the search, where it has no confidence
SURENESS = (  # of a caption, by its confidence
    "almost certainly wrong",
    "probably wrong",
    "uncertain",
    "probably right",
    "almost certainly right",
)
SURENESS_FROM = (0.07, 0.4, 0.6, 0.93)
SCHEMA = pa.schema(
    caption_table_schema().field(name)
    for name in (
        *("image_uri", "image_sha256", "width", "height", "caption", "confidence"),
        *("word_confidence", "token_log_probs", "alternatives", "captioner", "former"),
    )
)
_POSSESSIVE = re.compile(r"(?<=\w)'s(?!\w)")


def other_captions(row: Mapping[str, Any]) -> list[str]:
    """Return what else was said of an image: by another captioner, then by this one's search."""
    said = [row["former"]] if row["former"] else []
    return [each["caption"] for each in [*said, *(row["alternatives"] or ())] if each["caption"]]


@dataclass(frozen=True)
class Item:
    """A row of the table, and the decision in force about it, which may be `outdated`."""

    row: Mapping[str, Any]
    former: Review | None
    outdated: bool

    @cached_property
    def id(self) -> str:
        """Return a digest of the image, its bytes and its caption."""
        seen = [self.row[name] for name in ("image_uri", "image_sha256", "caption", "captioner")]
        return blake2b(repr(seen).encode(errors="replace"), digest_size=12).hexdigest()

    @cached_property
    def image(self) -> int:
        return hash_of(self.row["image_uri"])

    @cached_property
    def content(self) -> int:
        return hash_of(self.row["image_sha256"])

    @property
    def alternatives(self) -> list[str]:
        """Return the texts to choose among, beside the caption, the best first."""
        human = [self.former.text] if self.former and self.former.text else []
        texts = dict.fromkeys(text for text in [*human, *other_captions(self.row)] if text)
        return [text for text in texts if text != self.row["caption"]][:CHOICES]

    def review(self, decision: str, text: str) -> Review:
        """Return a person's decision, to be saved; raise Refused if it does not fit."""
        row = self.row
        decided, written = verdict(decision, text, row["caption"])
        seen = {name: row[name] for name in ("image_uri", "image_sha256", "caption", "captioner")}
        return Review(
            **seen,
            confidence=row["confidence"],
            decision=decided,
            text=written,
            id="",  # these four are the writer's
            reviewer="",
            origin="",
            reviewed_at=datetime.now(UTC),
        )

    def shown(self) -> dict[str, Any]:
        """Return what a page shows, as values of JSON."""
        row = self.row
        folder, name = place(row["image_uri"])
        return {
            "id": self.id,
            "name": name,
            "folder": folder,
            "size": [row["width"], row["height"]],
            "caption": row["caption"],
            "words": words(row["caption"], row["word_confidence"], row["token_log_probs"]),
            "calibrated": bool(row["word_confidence"]),
            "confidence": row["confidence"],
            "sureness": sureness(row["confidence"]),
            "alternatives": self.alternatives,
            "longest": MAX_TEXT,
            "former": self._former(),
        }

    def _former(self) -> dict[str, Any] | None:
        if self.former is None:
            return None
        decided_at = self.former.reviewed_at.isoformat()
        named = {name: getattr(self.former, name) for name in ("decision", "text", "reviewer")}
        return {**named, "at": decided_at, "outdated": self.outdated}


def read_item(queue: Queue, number: int) -> Item:
    """Read an entry of a queue; raise TemporaryError if the table has changed since."""
    path, row = queue.files[queue.file[number]], int(queue.row[number])
    table = _read_row(path, row)
    if not len(table) or hash_of(table["image_uri"][0].as_py()) != queue.image[number]:
        raise TemporaryError(f"{path} was rewritten while its rows were reviewed")
    positions, outdated = queue.in_force.find(table["image_uri"], table["image_sha256"])
    former = as_reviews(queue.in_force.reviews.take(positions.drop_null()))
    return Item(table.to_pylist()[0], former[0] if former else None, outdated[0].as_py())


def _read_row(path: OutPath, row: int) -> pa.Table:
    """Read one row, or none if the file has fewer, from the row group that holds it."""
    with closing(open_file(path)) as file:
        names = [name for name in file.schema_arrow.names if name in SCHEMA.names]
        for number in range(file.num_row_groups):
            rows = file.metadata.row_group(number).num_rows
            if row < rows:
                read = partial(file.read_row_group, number, columns=names)
                found = readable(path, read)
                return plain_table(found.slice(row, 1), SCHEMA)
            row -= rows
    return SCHEMA.empty_table()


def place(uri: str) -> tuple[str, str]:
    """Return the folder or container of an image, and its name in it."""
    inner, container = split_chain(uri)
    if container:
        return container.removeprefix("::"), inner.partition("://")[2]
    folder, _, name = uri.rpartition("/")
    return folder, name


def sureness(confidence: float | None) -> str:
    """Return a confidence in words."""
    return "unknown" if confidence is None else SURENESS[bisect(SURENESS_FROM, confidence)]


def words(
    caption: str, confidences: Sequence[WordConfidence] | None, log_probs: Sequence[float] | None
) -> Words:
    """Return a caption in parts, with the probability of those that are doubtful words."""
    return _by_confidence(caption, confidences) if confidences else _by_search(caption, log_probs)


def _by_confidence(caption: str, confidences: Sequence[WordConfidence]) -> Words:
    """Find each word after the one before it; nothing is doubtful if the caption has others."""
    parts: Words = []
    shown = end = 0
    for each in confidences:
        found = re.compile(rf"(?<!\w){re.escape(each['word'])}(?!\w)").search(caption, end)
        if found is None:
            return [(caption, None)]
        end = found.end()
        if each["confidence"] < DOUBTFUL:
            parts += [(caption[shown : found.start()], None), (found[0], each["confidence"])]
            shown = end
    return [part for part in [*parts, (caption[shown:], None)] if part[0]]


def _by_search(caption: str, log_probs: Sequence[float] | None) -> Words:
    """Divide a caption into its words, each with the space before it.

    Nothing is doubtful if the log-probabilities are not those of these words and of the end.
    """
    texts = re.findall(r"\s*\S+", _POSSESSIVE.sub(" 's", caption))
    texts = [text.replace(" 's", "'s") for text in texts]
    if log_probs is None or len(log_probs) != len(texts) + 1:
        return [(caption, None)]
    sure = [math.exp(value) for value in log_probs[:-1]]
    return [(t, p if p < IMPROBABLE else None) for t, p in zip(texts, sure, strict=True)]
