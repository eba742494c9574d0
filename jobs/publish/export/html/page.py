"""A page of a site: its images, which of their alt attributes are ours, and its edited bytes."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from captioner.jobs.publish.export.html.encoding import Encoding, encoding_of
from captioner.jobs.publish.export.html.links import attribute_text, base_url, keys_on_page
from captioner.jobs.publish.export.html.tags import Tag, Value, start_tags
from captioner.jobs.publish.export.html.templates import Span, code_spans, is_templated
from captioner.jobs.publish.export.record import mark_of

_ESCAPES = str.maketrans({"&": "&amp;", '"': "&quot;", "<": "&lt;", ">": "&gt;"})
_ROLES = ("presentation", "none")


@dataclass(frozen=True)
class Picture:
    """An `<img>` of a page, and the comparable addresses of its image."""

    tag: Tag
    source: str  # the tag as it stands in the page
    keys: Sequence[str]
    is_templated: bool = False  # a template's code decides what its alt attribute is

    @property
    def alt(self) -> Value | None:
        return self.tag.attributes.get("alt")

    @property
    def existing(self) -> str | None:
        """The text that is there; "" if the author says that the image needs none."""
        if self.alt is not None:
            return attribute_text(self.alt)
        values = {name: value.text.lower() for name, value in self.tag.attributes.items()}
        is_decorative = values.get("role") in _ROLES or values.get("aria-hidden") == "true"
        return "" if is_decorative else None

    def with_alt(self, escaped: str) -> str:
        """Return the tag with an escaped text as its alt attribute."""
        if self.alt is None:
            at = self.tag.end_of_name - self.tag.start
            return f'{self.source[:at]} alt="{escaped}"{self.source[at:]}'
        start, end = self.alt.start - self.tag.start, self.alt.end - self.tag.start
        return self.source[:start] + escaped + self.source[end:]


@dataclass(frozen=True)
class Page:
    """A page as text, in its encoding; `url` is where it is on the site."""

    text: str
    encoding: Encoding
    url: str

    @classmethod
    def read(cls, content: bytes, url: str) -> "Page":
        """Read a page; raise Unfit if it cannot be written again byte for byte."""
        encoding = encoding_of(content)
        return cls(encoding.decode(content), encoding, url)

    @cached_property
    def pictures(self) -> Sequence[Picture]:
        """The images of the page, in order."""
        tags = [tag for tag in start_tags(self.text) if tag.name in ("img", "base")]
        bases = (tag.attributes for tag in tags if "href" in tag.attributes and tag.name == "base")
        base = base_url(self.url, next(bases, None))
        code = code_spans(self.text)
        return [self._picture(tag, base, code) for tag in tags if tag.name == "img"]

    def _picture(self, tag: Tag, base: str, code: Sequence[Span]) -> Picture:
        source = self.text[tag.start : tag.end]
        templated = is_templated(source, tag.start, tag.attributes, code)
        return Picture(tag, source, keys_on_page(tag, base), templated)

    def ours(self, marks: Iterable[str]) -> set[int]:
        """Return the numbers of the pictures whose tags are as an export wrote them.

        Where a page has more or fewer such tags than were written, any of them may be a person's.
        """
        written = [json.loads(mark) for mark in marks]
        digests = [self._digest(picture.source) for picture in self.pictures]
        counts = Counter(digests)
        return {
            number
            for number, digest in enumerate(digests)
            if any(mark.get(digest) == counts[digest] for mark in written)
        }

    def edited(self, texts: Mapping[int, str]) -> bytes:
        """Return the page with texts as the alt attributes of pictures, by their numbers."""
        pieces, at = [self.encoding.mark], 0
        for number, text in sorted(texts.items()):
            picture = self.pictures[number]
            pieces += map(
                self.encoding.encode,
                (self.text[at : picture.tag.start], self._with_alt(picture, text)),
            )
            at = picture.tag.end
        return b"".join([*pieces, self.encoding.encode(self.text[at:])])

    def mark(self, texts: Mapping[int, str], ours: set[int]) -> str:
        """Return the mark of the page as it will be edited: how many tags of each kind are ours."""
        sources = [
            self._with_alt(picture, texts[number]) if number in texts else picture.source
            for number, picture in enumerate(self.pictures)
        ]
        counts = Counter(sources)
        written = Counter(sources[number] for number in {*texts, *ours})
        return json.dumps({self._digest(tag): n for tag, n in written.items() if n == counts[tag]})

    def _with_alt(self, picture: Picture, text: str) -> str:
        return picture.with_alt(self.encoding.representable(text.translate(_ESCAPES)))

    def _digest(self, source: str) -> str:
        return mark_of(self.encoding.encode(source))
