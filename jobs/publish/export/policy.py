"""Which texts are exported: one policy for all formats.

An image is judged twice: first by its row, then by what is at its destination already.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from captioner.schemas.caption_table import Status
from captioner.schemas.review import Decision

MAX_CHARACTERS = 125  # screen readers read a longer alt text in pieces, or cut it
POLICY_COLUMNS = ("image_uri", "status", "text", "decision", "outdated", "needs_review")
_NOT_TEXT = re.compile(
    "[\x00-\x20\x7f-\x9f\u2028\u2029\ufffe\uffff]+"
)  # line breaks, and what XML refuses


class Action(StrEnum):
    """What an export does with an image."""

    WRITE = "write"
    UNCHANGED = "unchanged"  # the same text is there already
    KEEP = "keep"  # the text that is there is a person's
    REVIEW = "review"  # a person must decide first
    SKIP = "skip"  # there is no text to export


@dataclass(frozen=True)
class Verdict:
    """An action, the text that it is about (or a tag), and the reason why it is not written."""

    action: Action
    text: str = ""
    reason: str = ""
    former: str | None = None  # the other text that is there


class Unfit(Exception):
    """A row that a format cannot hold; it becomes the verdict `action` with the message."""

    def __init__(self, message: str, action: Action = Action.SKIP) -> None:
        super().__init__(message)
        self.verdict = Verdict(action, reason=message)


@dataclass(frozen=True)
class Policy:
    """What may be exported; `decorative` says whether a format has a way to say "no text"."""

    max_characters: int = MAX_CHARACTERS
    decorative: bool = True

    def judge(self, row: Mapping[str, Any]) -> Verdict:
        """Judge a row with POLICY_COLUMNS: WRITE, REVIEW or SKIP."""
        if row["text"] is None:
            return Verdict(Action.SKIP, reason=_why_no_text(row))
        text = published(row["text"])
        if row["needs_review"]:
            return Verdict(Action.REVIEW, text, _why_review(row))
        if not text and not self.decorative:
            return Verdict(Action.SKIP, reason="decorative")
        if len(text) > self.max_characters:
            reason = f"longer than {self.max_characters} characters"
            return Verdict(Action.REVIEW, text, reason)
        return Verdict(Action.WRITE, text)


def at_destination(verdict: Verdict, existing: str | None, *, is_ours: bool) -> Verdict:
    """Judge again, by the text at the destination, None without one.

    `is_ours` says that an export wrote it and nobody has changed it since.
    """
    if verdict.action is not Action.WRITE:
        stays = "; what was exported earlier is still there" if is_ours else ""
        return replace(verdict, reason=verdict.reason + stays)
    if existing is None:
        return verdict
    if existing == verdict.text:
        return replace(verdict, action=Action.UNCHANGED)
    if is_ours:
        return replace(verdict, former=existing)
    return replace(verdict, action=Action.KEEP, reason="a person's text", former=existing)


def published(text: str) -> str:
    """Return a text on one line, without control characters."""
    return _NOT_TEXT.sub(" ", text).strip(" ")


def _why_no_text(row: Mapping[str, Any]) -> str:
    if row["decision"] == Decision.REJECTED:
        return "rejected"
    return "no caption" if row["status"] == Status.OK else f"failed: {row['status']}"


def _why_review(row: Mapping[str, Any]) -> str:
    return "the image has changed since" if row["outdated"] else "below the threshold"
