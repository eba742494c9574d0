"""Where a page is SVG or MathML: there `<style>` and `<title/>` are not those of HTML."""

from collections.abc import Collection

_ROOTS = ("svg", "math")
_HTML_INSIDE = {  # elements of SVG and MathML that have HTML in them
    "svg": ("foreignobject", "desc", "title"),
    "math": ("mi", "mo", "mn", "ms", "mtext", "annotation-xml"),
}
_BREAKS_OUT = {  # elements of HTML that end what they stand in
    *("b", "big", "blockquote", "body", "br", "center", "code", "dd", "div", "dl", "dt", "em"),
    *("embed", "h1", "h2", "h3", "h4", "h5", "h6", "head", "hr", "i", "img", "li", "listing"),
    *("menu", "meta", "nobr", "ol", "p", "pre", "ruby", "s", "small", "span", "strong", "strike"),
    *("sub", "sup", "table", "tt", "u", "ul", "var"),
}
_FONT = {"color", "face", "size"}  # a font with one of these breaks out, too


class Foreign:
    """The open elements that lead into SVG or MathML, or back into HTML."""

    def __init__(self) -> None:
        self._open: list[str] = []

    def open(self, name: str, attributes: Collection[str], *, is_closed: bool) -> bool:
        """Take note of a start tag; return whether it is an element of HTML."""
        is_font = name == "font" and not _FONT.isdisjoint(attributes)
        if self._is_foreign and (name in _BREAKS_OUT or is_font):
            while self._is_foreign:
                self._open.pop()
        if not self._is_foreign:
            if name in _ROOTS and not is_closed:
                self._open.append(name)
            return name not in _ROOTS
        if not is_closed and (name in _ROOTS or name in _HTML_INSIDE[self._open[-1]]):
            self._open.append(name)
        return False

    def close(self, name: str) -> None:
        """Take note of an end tag."""
        if name in ("p", "br"):
            while self._is_foreign:
                self._open.pop()
        if name in self._open:
            while self._open.pop() != name:
                pass

    @property
    def _is_foreign(self) -> bool:
        return bool(self._open) and self._open[-1] in _ROOTS
