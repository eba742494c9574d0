"""An answer -> the text in it: without HTML, Markdown, labels, and words around the caption."""

import html
import re

_ENTITY = re.compile(r"&(?:#\d{1,7}|#x[\da-f]{1,6}|[a-z][a-z\d]{1,31});", re.IGNORECASE)
_INLINE_TAG = re.compile(
    r"</?(?:a|abbr|alt|answer|b|br|caption|cite|code|description|div|em|figcaption|i|mark|output|p|"
    r"pre|q|small|span|strong|sub|sup|text|u)(?:[\s/][^<>]*)?>",
    re.IGNORECASE,
)
_LINK = re.compile(r"!?\[([^\[\]]*)\]\([^()]*\)")
_END_TOKEN = re.compile(  # unlike <unk>, these stand before or after a text
    r"<(?:pad|s|/s|bos|eos|sep|cls)>|<\|[\w ]{1,30}\|>|\[(?:PAD|CLS|SEP|BOS|EOS)\]", re.IGNORECASE
)
_FENCE = re.compile(r"(?:```|~~~)\w*")
_ITEM = re.compile(r"(?:[-*+•–—]|\d{1,2}[.)]|#{1,6}|>+)\s+")  # of a list, a heading, a quotation
_MARKDOWN = re.compile(r"[*`]|~~|(?<!\w)_+|_+(?!\w)|#(?!\w)|(?<!\S)#(?=#)")
_ESCAPED = re.compile(r"\\([\"'*_#`\[\]()!.-])")

_LABEL_WORDS = (
    r"alt(?:ernative)?(?:[ -]text)?|(?:image |photo )?(?:caption|description)|answer|output|"
    r"response|result|assistant|sentence|title|image|photo|picture"
)
_INTERJECTION = r"(?:sure|certainly|of course|absolutely|okay|ok|yes|great)(?: thing)?"
_LABEL = re.compile(
    rf"(?:(?:the|an?|my|one|possible|suggested|suitable|short|concise|final) ){{0,3}}"
    rf"(?:{_LABEL_WORDS})(?: (?:for|of) (?:the|this) (?:image|photo|picture))?(?: is)? ?[:=：]\s*",
    re.IGNORECASE,
)
_PREAMBLE = re.compile(
    rf"(?:{_INTERJECTION}[!,.]? )?(?:here(?:['’]s| is)|this is|below is)\b[^:.!?\"“]{{0,60}}"
    rf"\b(?:alt(?:ernative)?[ -]text|caption|description|sentence|answer)\b[^:.!?\"“]{{0,60}}[:：]",
    re.IGNORECASE,
)
_AGREEMENT = re.compile(rf"{_INTERJECTION}[!,.:]\s+", re.IGNORECASE)
_PAIRS = {'"': '"', "'": "'", "“": "”", "„": "“", "‘": "’", "«": "»", "「": "」", "『": "』"}
_BRACKETS = {"(": ")", "[": "]"}
_OUTER_QUOTE = re.compile(r"(?<!\w)['’]|['’](?!\w)")  # no apostrophe within a word
_LOOSE_QUOTE = re.compile(r"\A['’](?=[^\w\s])")


def without_thoughts(text: str) -> str:
    """Return an answer without what the model thought before it."""
    return text.rpartition("</think>")[2]


def unwrapped(text: str) -> str:
    """Return the text of the first paragraph that is a caption."""
    text = _ENTITY.sub(lambda entity: html.unescape(entity[0]), text)
    text = _LINK.sub(r"\1", _INLINE_TAG.sub("", _without_end_tokens(text)))
    text = _MARKDOWN.sub("", _ESCAPED.sub(r"\1", _first_paragraph(text)))
    text = " ".join(text.split())
    for opening in (_PREAMBLE, _AGREEMENT, _LABEL):
        text = _from(opening, text)
    return _unquoted(text)


def _without_end_tokens(text: str) -> str:
    parts = [part for part in map(str.strip, _END_TOKEN.split(text)) if part]
    return parts[0] if len(parts) == 1 else text


def _first_paragraph(text: str) -> str:
    """Return the first paragraph or item of a list that is not a heading; "" without one."""
    paragraphs = [""]
    for line in map(str.strip, text.split("\n")):
        item = _ITEM.match(line)
        if not line or item:
            paragraphs.append("")
        if not _FENCE.fullmatch(line):
            paragraphs[-1] += f" {line[item.end() :] if item else line}"
    return next(filter(_is_text, paragraphs), "")


def _is_text(paragraph: str) -> bool:
    words = _MARKDOWN.sub("", paragraph).strip()
    is_heading = words.endswith((":", "：")) or _LABEL.fullmatch(f"{words}:")
    return any(map(str.isalpha, words)) and not is_heading


def _from(opening: re.Pattern[str], text: str) -> str:
    found = opening.match(text)
    return text[found.end() :].lstrip() if found else text


def _unquoted(text: str) -> str:
    """Return a text without quotation marks or brackets around all of it."""
    inner = text.rstrip(" .")
    pairs = _PAIRS | _BRACKETS
    if len(inner) < 2 or inner[-1] != pairs.get(inner[0]):
        return _closed(text)
    opening, closing = inner[0], inner[-1]
    inner = inner[1:-1]
    if opening in "'‘":
        return text if _OUTER_QUOTE.search(inner) else inner
    return text if opening in inner or closing in inner else inner


def _closed(text: str) -> str:
    """Return a text without a quotation mark at its start or end that has no counterpart."""
    text = _LOOSE_QUOTE.sub("", text, count=1)
    if text.count('"') % 2 == 0:
        return text
    return text[1:] if text.startswith('"') else text.removesuffix('"')
