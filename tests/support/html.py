"""What a page of HTML says, and what it is made of."""

from collections import Counter
from html.parser import HTMLParser


class Html(HTMLParser):
    """A parsed page: its text without styles, how often each tag occurs, and its pictures."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.attributes: set[str] = set()
        self.links: list[str] = []
        self._texts: list[str] = []
        self.feed(page)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self._texts).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes |= {name for name, _ in attrs}
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        if self.get_starttag_text() != "<style>":
            self._texts.append(data)
