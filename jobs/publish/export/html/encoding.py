"""The bytes of a page as text, and back without a change."""

import codecs
import re
from dataclasses import dataclass

from captioner.jobs.publish.export.policy import Action, Unfit

_MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
_DECLARED = re.compile(
    rb"""<meta[^>]+charset\s*=\s*["']?\s*([\w.:-]+)|<\?xml[^>]+encoding\s*=\s*["']([\w.:-]+)""",
    re.I,
)
_WITHIN = 1024  # bytes, in which a page declares its encoding
_BROWSERS = {  # what browsers take these for
    "ascii": "cp1252",
    "iso8859-1": "cp1252",
    "iso8859-9": "cp1254",
    "tis-620": "cp874",
    "shift_jis": "cp932",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    **dict.fromkeys(("utf-16", "utf-16-le", "utf-16-be", "utf-8-sig"), "utf-8"),  # read as ASCII
}
_REFUSED = (  # a byte depends on all those before it, or is not what ASCII has
    *("iso2022", "hz", "utf-7", "utf-32", "unicode", "raw-unicode", "idna", "punycode"),
)


@dataclass(frozen=True)
class Encoding:
    """The encoding of a page; bytes that are wrong in it survive."""

    name: str
    mark: bytes = b""  # at the beginning

    def decode(self, content: bytes) -> str:
        """Return a page as text; raise Unfit if `encode` would not give the same bytes."""
        errors = "surrogatepass" if self.name.startswith("utf-16") else "surrogateescape"
        try:
            text = content[len(self.mark) :].decode(self.name, errors)
            if self.mark + text.encode(self.name, errors) == content:
                return text
        except (UnicodeError, LookupError):
            pass
        raise Unfit(f"the page is not in its encoding, {self.name}", Action.REVIEW)

    def encode(self, text: str) -> bytes:
        """Return a piece of a page as bytes."""
        errors = "surrogatepass" if self.name.startswith("utf-16") else "surrogateescape"
        return text.encode(self.name, errors)

    def representable(self, text: str) -> str:
        """Return a text with references for the characters that the encoding lacks."""
        return text.encode(self.name, "xmlcharrefreplace").decode(self.name)


def encoding_of(content: bytes) -> Encoding:
    """Return the encoding of a page as browsers find it; raise Unfit for an unusable one."""
    for mark, name in _MARKS.items():
        if content.startswith(mark):
            return Encoding(name, mark)
    declared = _DECLARED.search(content[:_WITHIN])
    if declared is None:
        return Encoding("utf-8" if _is_utf8(content) else "cp1252")
    label = (declared[1] or declared[2]).decode("latin-1")
    try:
        name = codecs.lookup(label).name
    except LookupError as error:
        raise Unfit(f"the page has an unknown encoding, {label}", Action.REVIEW) from error
    name = _BROWSERS.get(name, name)
    if name.replace("_", "-").startswith(_REFUSED):
        raise Unfit(f"the page is in {label}, which cannot be edited", Action.REVIEW)
    return Encoding(name)


def _is_utf8(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True
