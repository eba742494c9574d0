"""The start tags of an HTML page, with their positions.

The positions are why no parser is used: those at hand do not tell where an attribute is. This
follows the tokenizer of the HTML standard, so that comments, scripts, styles and the like hold no
tags, and broken markup has the tags that a browser sees.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from captioner.jobs.publish.export.html.foreign import Foreign

_SPACE = "\t\n\f\r "
_TAG = re.compile(rf"<(/?)([a-zA-Z][^{_SPACE}/>]*)")
_COMMENT = re.compile(r"<!--(?:-?>|.*?--!?>)", re.DOTALL)
_BETWEEN = re.compile(rf"[{_SPACE}/]*")
_NAME = re.compile(rf"[^{_SPACE}/>][^{_SPACE}/>=]*")
_EQUALS = re.compile(rf"[{_SPACE}]*=[{_SPACE}]*")
_UNQUOTED = re.compile(rf"[^{_SPACE}>]*")
# Their content is text up to their end tag. That of noscript is not, for a browser without scripts.
_RAW = ("script", "style", "textarea", "title", "xmp", "iframe", "noembed", "noframes")
_SCRIPT = re.compile(rf"<!--|-->|<(/?)script(?=[{_SPACE}/>])", re.IGNORECASE | re.ASCII)
_ISLANDS = {"<![CDATA[": "]]>", "<?": "?>", "<%": "%>"}  # not HTML: XML, or a template's code


@dataclass(frozen=True)
class Value:
    """The value of an attribute as it stands in the page, and where: without its quotes."""

    text: str
    start: int
    end: int


@dataclass(frozen=True)
class Tag:
    """A start tag from `start` to `end`; its attributes by name, the first of each name."""

    name: str
    start: int
    end: int
    attributes: Mapping[str, Value]
    is_closed: bool = False  # by a slash

    @property
    def end_of_name(self) -> int:
        return self.start + 1 + len(self.name)


def start_tags(page: str) -> Iterator[Tag]:
    """Yield the start tags of a page; none within XML's CDATA or the code of a template."""
    at, island, foreign = 0, 0, Foreign()
    while (at := page.find("<", at)) >= 0:
        island = max(island, _end_of_island(page, at))
        found = _TAG.match(page, at)
        if found is None:
            at = _after_other(page, at)
        else:
            tag = _read_tag(page, found)
            if tag is None:
                return
            at = tag.end
            if found[1]:
                foreign.close(tag.name)
                continue
            is_html = foreign.open(tag.name, tag.attributes, is_closed=tag.is_closed)
            if tag.start >= island:
                yield tag
            if is_html and tag.name == "plaintext":
                return
            if is_html and tag.name in _RAW:
                at = _end_of_raw(page, at, tag.name)
        if at < 0:
            return


def _end_of_island(page: str, at: int) -> int:
    for begin, end in _ISLANDS.items():
        if page.startswith(begin, at):
            return page.find(end, at)
    return 0


def _after_other(page: str, at: int) -> int:
    """Return the position after a "<" that begins no tag; -1 at the end of the page."""
    if page.startswith("<!--", at):
        comment = _COMMENT.match(page, at)
        return comment.end() if comment else -1
    if page.startswith(("<!", "<?", "</"), at):
        return page.find(">", at + 2) + 1 or -1
    return at + 1


def _read_tag(page: str, found: "re.Match[str]") -> Tag | None:
    """Read the attributes of a tag; None if the page ends within it."""
    at, attributes = found.end(), dict[str, Value]()
    while True:
        end, at = at, _at(_BETWEEN, page, at)
        if page.startswith(">", at):
            is_closed = at > end and page[at - 1] == "/"
            return Tag(_lower(found[2]), found.start(), at + 1, attributes, is_closed)
        start, at = at, _at(_NAME, page, at)
        if at == start:  # the page ends
            return None
        name, value = _lower(page[start:at]), Value("", at, at)
        if equals := _EQUALS.match(page, at):
            value, at = _read_value(page, equals.end())
            if at < 0:
                return None
        attributes.setdefault(name, value)


def _read_value(page: str, at: int) -> tuple[Value, int]:
    """Return the value of an attribute and the position after it; -1 if its quote never ends."""
    quote = page[at : at + 1]
    if quote and quote in "\"'":
        start, end = at + 1, page.find(quote, at + 1)
        return Value(page[start:end], start, end), end + 1 if end >= 0 else -1
    end = _at(_UNQUOTED, page, at)
    return Value(page[at:end], at, end), end


def _at(pattern: "re.Pattern[str]", page: str, at: int) -> int:
    """Return where a pattern ends that begins at a position; there if it does not match."""
    match = pattern.match(page, at)
    return match.end() if match else at


def _end_of_raw(page: str, at: int, name: str) -> int:
    """Return where the end tag of a script, style or the like begins; -1 without one."""
    if name == "script":
        return _end_of_script(page, at)
    end = re.compile(rf"</{name}(?=[{_SPACE}/>])", re.IGNORECASE | re.ASCII).search(page, at)
    return end.start() if end else -1


def _end_of_script(page: str, at: int) -> int:
    """Return where the end tag of a script begins.

    In a script, `<!-- <script>` hides the next end tag, as browsers have always had it.
    """
    is_comment = is_hidden = False
    while found := _SCRIPT.search(page, at):
        at = found.end()
        if found[0] == "<!--":
            if not is_comment:
                is_comment, at = True, at - 2  # "<!-->" is a whole comment
        elif found[0] == "-->":
            is_comment = is_hidden = False
        elif not found[1]:
            is_hidden = is_comment
        elif not is_hidden:
            return found.start()
        else:
            is_hidden = False
    return -1


def _lower(name: str) -> str:
    """Return a name with ASCII's letters in lower case."""
    if name.isascii():
        return name.lower()
    return "".join(letter.lower() if letter.isascii() else letter for letter in name)
