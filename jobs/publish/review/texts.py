"""What a person decides and writes, made fit to be saved."""

import unicodedata

from captioner.schemas.review import Decision

MAX_TEXT = 125  # characters: some screen readers cut an alt text there
_UNSEEN = {"Cc", "Cs"}  # control characters, halves of surrogate pairs
_REORDERING = {*"\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff"}


class Refused(ValueError):
    """A decision that cannot be saved; the message says why, and what to do."""


def clean_text(text: str) -> str:
    """Return a text in NFC with single spaces, without characters that nobody sees."""
    seen = (c for c in " ".join(text.split()) if unicodedata.category(c) not in _UNSEEN)
    visible = "".join(c for c in seen if c not in _REORDERING)
    return " ".join(unicodedata.normalize("NFC", visible).split())


def verdict(decision: str, text: str, caption: str) -> tuple[Decision, str | None]:
    """Return what to save for a decision, as a page or a spreadsheet names it, and its text.

    A text that equals the caption accepts it, whatever its length. Raise Refused for another
    decision, or a text that is empty or too long.
    """
    match decision:
        case Decision.ACCEPTED:
            return Decision.ACCEPTED, caption
        case Decision.EDITED if clean_text(text) == caption:
            return Decision.ACCEPTED, caption
        case Decision.EDITED:
            return Decision.EDITED, fitting(clean_text(text))
        case Decision.REJECTED:
            return Decision.REJECTED, None
        case Decision.DECORATIVE:
            return Decision.DECORATIVE, ""
    raise Refused(
        f"{decision!r} is no decision: write accepted, edited, rejected, decorative or nothing"
    )


def fitting(text: str) -> str:
    """Return a text that has a fitting length; raise Refused otherwise."""
    if not text:
        raise Refused("the text is empty: an image that needs none is decorative")
    if len(text) > MAX_TEXT:
        raise Refused(f"the text has {len(text)} characters: at most {MAX_TEXT} fit")
    return text
