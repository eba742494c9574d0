"""The code of templates in a page: what it makes of a tag is unknown, alt attribute included."""

import re
from bisect import bisect_left
from collections.abc import Collection, Iterator, Sequence

Span = tuple[int, int]

_BLOCKS = ("raw", "verbatim", "comment")  # their content is not the page's either
_CODE = (  # what begins a piece of code, and what ends it
    *((rf"\{{%[-+~]?\s*{name}\b", rf"\{{%[-+~]?\s*end{name}\b.*?%\}}") for name in _BLOCKS),
    (r"\{\{!--", r"--~?\}\}"),  # comments of Handlebars, Blade, JSP, FreeMarker
    (r"\{\{--", r"--\}\}"),
    (r"<%--", r"--%>"),
    (r"<#--", r"-->"),
    (r"<\?(?:php\b|=)", r"\?>|\Z"),
    (r"<\?", r"\?>"),
    (r"<%", r"%>"),
    (r"\{\{", r"\}\}"),
    (r"\{%", r"%\}"),
    (r"(?<!\{)\{#", r"#\}"),
)
_BEGIN = re.compile("|".join(f"({begin})" for begin, _ in _CODE))
_ENDS = [re.compile(end, re.DOTALL) for _, end in _CODE]
_MARKS = ("<?", "<%", "{{", "{%", "{#", "${")
_BOUND = re.compile(r"(?!data-)(?:.*[^a-z0-9])?alt(?:[^a-z0-9].*)?")  # :alt, [attr.alt], th:alt
_BINDING_ANY = ("v-bind", "x-bind", "data-bind", "th:attr", "tal:attributes")


def code_spans(page: str) -> Sequence[Span]:
    """Return where the pieces of template code begin and end, in order."""
    return list(_code_spans(page))


def is_templated(source: str, start: int, names: Collection[str], code: Sequence[Span]) -> bool:
    """Return whether code decides about a tag: it has some, is within some, or its alt is bound.

    `start` is where the tag is in the page, `names` are those of its attributes.
    """
    after = bisect_left(code, start + len(source), key=lambda span: span[0])
    return (
        (after > 0 and code[after - 1][1] > start)
        or any(mark in source for mark in _MARKS)
        or any(_binds_alt(name) for name in names)
    )


def _code_spans(page: str) -> Iterator[Span]:
    at, endless = 0, set[int]()
    while begin := _BEGIN.search(page, at):
        kind, at = int(begin.lastindex or 1) - 1, begin.end()
        if kind in endless:
            continue
        if end := _ENDS[kind].search(page, at):
            at = end.end()
            yield begin.start(), at
        else:
            endless.add(kind)


def _binds_alt(name: str) -> bool:
    if name == "alt":
        return False
    return name in _BINDING_ANY or name.startswith("{") or bool(_BOUND.fullmatch(name))
