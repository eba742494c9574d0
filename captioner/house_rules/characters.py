"""Any text -> visible characters and line feeds, composed (NFC)."""

import re
import unicodedata

# Of terminals: colours, cursor movements, window titles.
_ESCAPE_SEQUENCE = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|[\x1b\x9b]"
)
_LINE_BREAK = re.compile(r"\r\n|[\r\v\f\x1c-\x1e\x85\u2028\u2029]")
_KEPT_SYMBOLS = frozenset("°©®™℃℉№")
_INVISIBLE = re.compile(  # although they are marks and letters
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
_MARK = "[\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f]"
_PILE = re.compile(f"({_MARK}{{2}}){_MARK}+")  # of marks on one letter, over the lines above
_NARROW = str.maketrans("\uff0e\uff61\uff20\uff0f\uff1c\uff1e", ".\u3002@/<>")
_STOP_IN_NAME = re.compile(r"(?<=[A-Za-z0-9])\u3002(?=[A-Za-z0-9])")  # read as a dot in addresses
_GONE = {"Cc", "Cf", "Cs", "Co", "Cn", "Me"}  # control, invisible, surrogate, private, unassigned
_SPACE = {"Zs", "So"}  # spaces of any width, and symbols such as emoji


def visible(text: str) -> str:
    """Return text without control characters, invisible ones and emoji, in lines.

    The wide forms of the signs that addresses and markup are made of become the usual ones.
    """
    text = _LINE_BREAK.sub("\n", _ESCAPE_SEQUENCE.sub("", text))
    if not (text.isascii() and text.isprintable()):
        text = "".join(map(_shown, _INVISIBLE.sub("", text))).translate(_NARROW)
        text = _STOP_IN_NAME.sub(".", text)
    return _PILE.sub(r"\1", unicodedata.normalize("NFC", text))


def _shown(character: str) -> str:
    """Return what is shown for a character: itself, a space, or nothing."""
    if character in "\n\t":
        return "\n" if character == "\n" else " "
    category = unicodedata.category(character)
    if category in _GONE:
        return ""
    if category in _SPACE and character not in _KEPT_SYMBOLS:
        return " "
    is_skin_tone = category == "Sk" and not character.isascii()
    return "" if is_skin_tone else character
