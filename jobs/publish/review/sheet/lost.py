"""Characters that a program lost when it saved a spreadsheet without Unicode."""

import re

from captioner.jobs.publish.review.sheet.reading import Encoding

_CAPITALS = "À-ÖØ-ÞŒ"
_SMALL = "a-zß-öø-ÿ"
_LETTER = r"[^\W\d_]"
# What Mac Roman and other alphabets look like when they are read as Windows-1252.
_MISREAD = re.compile(
    r"[\ufffd\u0160\u0161\u0178\u017d\u017e\u0192\u02c6\u02dc\u201a\u2020\u2021\u2030]"
    f"|(?<=[{_SMALL}])[{_CAPITALS}]|(?<=[A-Z{_CAPITALS}])[{_CAPITALS}](?=[{_SMALL}])"
    rf"|(?<={_LETTER})[\u201c-\u201e\u2022\u2026\u2039\u203a\u20ac\u2122](?={_LETTER})"
    f"|[{_CAPITALS}ß-öø-ÿ]{{4}}"
)
_REPLACED = re.compile(r"\?\?|(?<![\w\"'\u2019\u201d)])\?|\?(?=[\w.,;:])")  # not as at an end


def has_lost_characters(text: str, former: str, encoding: Encoding) -> bool:
    """Return whether a text seems to differ from what was written before the file was saved.

    Programs write a question mark for a character that an encoding lacks: it is doubtful where the
    former text had none, in ASCII only where no sentence ends.
    """
    is_doubtful = "?" in text and "?" not in former
    match encoding:
        case Encoding.UNICODE:
            return False
        case Encoding.ASCII:
            is_former = text == former.encode("ascii", "replace").decode()
            return is_doubtful and (is_former or _REPLACED.search(text) is not None)
        case Encoding.WINDOWS:
            return is_doubtful or _MISREAD.search(text) is not None
