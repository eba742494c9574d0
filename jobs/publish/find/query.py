"""What a person types -> an expression of SQLite's full-text search.

Words, "quoted phrases" and beginnings of words (`snow*`) have a meaning; everything else is data.
"""

import re
from dataclasses import dataclass

from captioner.jobs.errors import UsageError

_PART = re.compile(r'"([^"]*)"?|([^\s"]+)')
# Words that nearly every caption has: they find nothing, and cost the most.
STOP_WORDS = frozenset({
    "a", "an", "and", "are", "as", "at", "be", "being", "by", "for", "from", "has", "have", "in",
    "into", "is", "it", "its", "of", "on", "or", "over", "some", "that", "the", "their", "there",
    "this", "to", "up", "was", "were", "while", "with",
})  # fmt: skip


@dataclass(frozen=True)
class Query:
    """The parts of a query, as expressions of FTS5."""

    parts: tuple[str, ...]

    @property
    def all_parts(self) -> str:
        return " AND ".join(self.parts)

    @property
    def any_part(self) -> str:
        return " OR ".join(self.parts)


def parse_query(text: str) -> Query:
    """Parse a query; raise UsageError if it has no word."""
    readable = text.replace("\0", " ").encode(errors="replace").decode()
    found = [(phrase or word, bool(phrase)) for phrase, word in _PART.findall(readable)]
    parts = [part for part in found if any(sign.isalnum() for sign in part[0])]
    if not parts:
        raise UsageError(f"there is no word in {text!r}: give words to search for")
    telling = [part for part in parts if part[1] or part[0].lower() not in STOP_WORDS]
    return Query(tuple(_expression(*part) for part in telling or parts))


def _expression(part: str, is_phrase: bool) -> str:
    """Return a part in double quotes, which make all of it data."""
    is_prefix = part.endswith("*") and not is_phrase
    return f'"{part}"' + "*" * is_prefix
