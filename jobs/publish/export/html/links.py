"""Which image a tag shows: its address, resolved as a browser does, and made comparable."""

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from html import unescape
from urllib.parse import quote, unquote, urljoin, urlsplit

from captioner.jobs.publish.export.html.tags import Tag, Value
from captioner.jobs.publish.export.locations import Locations, as_path, query_of
from captioner.jobs.publish.export.policy import Unfit
from captioner.jobs.storage.uris import is_http

NOWHERE = "http://site.invalid"  # where a site is whose URL is unknown
_LISTS = ("srcset", "data-srcset")
_SINGLE = ("src", "data-src")  # data-src: images that a script loads when they are seen
_WIDTH = re.compile(r"[\d.]+[wxh]")


def addresses(tag: Tag) -> Iterator[str]:
    """Yield the addresses of a tag's image, the first that is known counts."""
    for name in _SINGLE:
        if name in tag.attributes:
            yield attribute_text(tag.attributes[name])
    for name in _LISTS:
        if name in tag.attributes:
            words = attribute_text(tag.attributes[name]).split()
            yield from (word.strip(",") for word in words if not _WIDTH.fullmatch(word.strip(",")))


def attribute_text(value: Value) -> str:
    """Return the text of an attribute."""
    return unescape(value.text)


def keys_on_page(tag: Tag, base: str) -> Sequence[str]:
    """Return the comparable addresses of a tag's image, the first that is known counts.

    `base` is the URL that they start from. An address with a query also has a key for any query.
    """
    keys = []
    for address in addresses(tag):
        with suppress(ValueError):  # it is no URL
            url = urljoin(base, _trimmed(address))
            keys += [_key(url), _key_of_any_query(url)] if urlsplit(url).query else [_key(url)]
    return list(dict.fromkeys(keys))


def base_url(page_url: str, attributes: Mapping[str, Value] | None) -> str:
    """Return the URL that the addresses on a page start from, with its `<base>` if it has one."""
    if attributes is None or "href" not in attributes:
        return page_url
    try:
        return urljoin(page_url, _trimmed(attribute_text(attributes["href"])))
    except ValueError:
        return page_url


def keys_of_image(uri: str, locations: Locations) -> Iterator[tuple[str, bool]]:
    """Yield the comparable addresses of an image of the table, and whether each shows it.

    A query in the table tells images apart, so the address with another query shows another image.
    """
    has_query = bool(query_of(uri))
    for url in _urls(uri, locations):
        with suppress(ValueError):
            yield _key(url), True
            yield _key_of_any_query(url), not has_query


def _urls(uri: str, locations: Locations) -> Iterator[str]:
    with suppress(Unfit, ValueError):
        yield locations.shown(uri)
    if is_http(uri):
        yield uri


def page_url(path: str, locations: Locations) -> str:
    """Return the URL of a page, given by its path."""
    try:
        return locations.url(locations.name(path))
    except Unfit:
        return f"{NOWHERE}/outside/{quote(as_path(path).encode('utf-8', 'surrogateescape'))}"


def _trimmed(address: str) -> str:
    return re.sub(r"[\t\n\r]", "", address).strip(" \f").replace("\\", "/")


def _key(url: str) -> str:
    """Return a URL without what does not tell images apart: scheme, fragment, percent-encoding."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https"):
        return url
    path = unicodedata.normalize("NFC", unquote(parts.path, errors="surrogateescape"))
    query = f"?{parts.query}" if parts.query else ""
    return f"//{parts.netloc.lower()}{path}{query}"


def _key_of_any_query(url: str) -> str:
    return f"{_key(urlsplit(url)._replace(query='').geturl())}?"
