"""What a person decided about an image: a line of OUT/reviews/*.jsonl."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum

import pyarrow as pa


class Decision(StrEnum):
    """What a person decided."""

    ACCEPTED = "accepted"  # the caption is right as it stands
    EDITED = "edited"  # another text, written or chosen among the alternatives
    REJECTED = "rejected"  # the caption is wrong, and there is no other text
    DECORATIVE = "decorative"  # the image needs no text: alt=""
    UNDONE = "undone"  # takes back the decision that `undoes` names


@dataclass(frozen=True)
class Review:
    """A person's decision about an image.

    `text` is the text to publish ("" for a decorative image), None if rejected or undone.
    `caption`, `confidence` and `captioner` are those that the person saw. `origin` is `page` or
    `import`.
    """

    id: str  # unique; its part before the last "-" is that of a session
    image_uri: str
    image_sha256: str | None
    decision: Decision
    text: str | None
    caption: str | None
    confidence: float | None
    captioner: str | None
    reviewer: str
    origin: str
    reviewed_at: datetime
    undoes: str | None = None  # the id of another review

    @property
    def session(self) -> str:
        """The session, an import or a start of the page, in which the person decided."""
        return self.id.rpartition("-")[0]


REVIEW_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("image_uri", pa.string(), nullable=False),
        pa.field("image_sha256", pa.string()),
        pa.field("decision", pa.string(), nullable=False),
        pa.field("text", pa.string()),
        pa.field("caption", pa.string()),
        pa.field("confidence", pa.float64()),
        pa.field("captioner", pa.string()),
        pa.field("reviewer", pa.string()),
        pa.field("origin", pa.string()),
        pa.field("reviewed_at", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("undoes", pa.string()),
    ]
)


def review_lines(reviews: Sequence[Review]) -> str:
    """Return reviews as JSON lines, with times in ISO 8601."""
    lines = (json.dumps(asdict(each), default=datetime.isoformat) for each in reviews)
    return "".join(f"{line}\n" for line in lines)
