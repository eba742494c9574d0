"""Texts in spreadsheets, which must not run as formulas."""

import re

# A cell that begins with one of these signs is a formula. Excel may split a cell at a separator.
_FORMULA = re.compile(r"(^|[;,\t\r\n])(?='*[=+\-@\t\r])")
_GUARDED = re.compile(r"(^|[;,\t\r\n])'(?='*[=+\-@\t\r])")


def guarded(text: str) -> str:
    """Return a text with an apostrophe wherever a spreadsheet would take it for a formula."""
    return _FORMULA.sub(r"\1'", text)


def unguarded(text: str) -> str:
    """Return the text that `guarded` was given."""
    return _GUARDED.sub(r"\1", text)
