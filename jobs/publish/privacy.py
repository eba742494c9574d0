"""What may stand in a report: URIs without signatures and passwords, and not too much text."""

import re

from captioner.jobs.storage.uris import is_http

LONGEST = 300  # characters of a text or URI
_ROW = re.compile(r"#row=\d+$")
_QUERY = re.compile(r"\?[^\s'\"<>=]+=[^\s'\"<>]*")
_PASSWORD = re.compile(
    r"(?<=://)[^\s/@]*:[^\s/@]*@|((?<=http://)|(?<=https://))[^\s/@?#]*@", re.IGNORECASE
)


def public_uri(uri: str) -> str:
    """Return the URI of an image without HTTP queries, which may be signed, and passwords."""
    return _PASSWORD.sub("", "::".join(_without_query(part) for part in uri.split("::")))


def _without_query(url: str) -> str:
    if not is_http(url):
        return url  # a ? is a character of a name
    address, _, query = url.partition("?")
    row = _ROW.search(query)
    return address + (row[0] if row else "")


def public_text(text: str, *uris: str) -> str:
    """Return a text, which may quote the URIs, without the queries and passwords of its URLs."""
    for uri in uris:
        text = text.replace(uri, public_uri(uri))
    return _PASSWORD.sub("", _QUERY.sub("", text))


def shortened(text: str, longest: int = LONGEST) -> str:
    """Return a text of at most `longest` characters, with its end cut off if need be."""
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def shortened_uri(uri: str, longest: int = LONGEST) -> str:
    """Return a URI of at most `longest` characters, with its middle left out if need be."""
    half = longest // 2
    return uri if len(uri) <= longest else f"{uri[: half - 1]}…{uri[-half:]}"
