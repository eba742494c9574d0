"""URLs without their signatures: who has a signed URL has access, so nothing may show it.

The rest of a query stays, as it may say which image is meant.
"""

import re
from urllib.parse import unquote

from captioner.jobs.storage.uris import is_http, split_chain

# Names of parameters, in lower case, that grant access ...
_SIGNATURES = frozenset(
    (
        *("signature", "sig", "hmac", "token", "access_token", "auth_token", "authtoken"),
        *("authorization", "auth", "apikey", "api_key", "api-key", "password", "secret"),
        *("security-token", "tempauth", "__token__", "hdnea", "hdnts", "q-signature", "oh", "hm"),
    )
)
_PREFIXES = ("x-amz-", "x-goog-", "x-oss-", "x-ms-", "x-cos-")
# ... and of those that change with them: of AWS, Google, Azure, Alibaba, Tencent and others.
_BESIDE = frozenset(
    (
        *("awsaccesskeyid", "googleaccessid", "ossaccesskeyid", "key-pair-id", "policy"),
        *("expires", "expiry", "exp", "oe", "ex", "is"),
        *("sv", "st", "se", "sr", "sp", "sip", "spr", "ss", "srt", "sdd", "ses", "scid"),
        *("skoid", "sktid", "skt", "ske", "sks", "skv", "saoid", "suoid"),
        *("q-sign-algorithm", "q-ak", "q-sign-time", "q-key-time"),
        *("q-header-list", "q-url-param-list"),
    )
)
_URL = re.compile(r"https?://[^\s'\"<>]+", re.IGNORECASE)
_USER = re.compile(r"(https?://)[^\s/?#'\"<>]*@", re.IGNORECASE)
# What follows a URL in its line, which may be more of it: names and queries have blanks and quotes.
_LINE = re.compile(r"https?://.*", re.IGNORECASE)
_PARAMETER = re.compile(r"(?<=[?&;#])([^\s=?&;#]+)=[^\s&#'\"<>]+")


def without_signature(url: str) -> str:
    """Return a URL, or a chain of them, without the parameters that sign its HTTP queries."""
    if "?" not in url and "#" not in url:
        return url
    inner, container = split_chain(url)
    if container:
        return f"{inner}::{without_signature(container[2:])}"
    return _unsigned(url) if is_http(url) else url


def without_signatures(text: str) -> str:
    """Return a text without the signatures, users and passwords of the HTTP URLs in it."""
    text = _USER.sub(r"\1", text) if "@" in text else text
    if "?" not in text and "#" not in text:
        return text
    text = _URL.sub(lambda url: _unsigned(url[0]), text)
    return _LINE.sub(lambda line: _PARAMETER.sub(_masked, line[0]), text)


def _masked(parameter: re.Match[str]) -> str:
    return f"{parameter[1]}=***" if _signs(parameter[0]) else parameter[0]


def _unsigned(url: str) -> str:
    address, sharp, fragment = url.partition("#")
    path, mark, query = address.partition("?")
    # A "#" in a name that nobody quoted leaves the query behind it.
    name, another, more = fragment.partition("?")
    left = _joined(_kept(name), another, more)
    return _joined(path, mark, query) + (f"{sharp}{left}" if left or not fragment else "")


def _joined(start: str, mark: str, query: str) -> str:
    """Return what is left of two parts around a mark, without the mark if all behind it goes."""
    kept = _kept(query)
    return f"{start}{mark}{kept}" if kept or not query else start


def _kept(query: str) -> str:
    parameters = query.split("&")
    if not any(map(_signs, parameters)):
        return query
    return "&".join(each for each in parameters if not _signs(each) and _name(each) not in _BESIDE)


def _signs(parameter: str) -> bool:
    """Return whether a parameter, or one of several between semicolons, grants access."""
    names = map(_name, parameter.split(";"))
    return any(name in _SIGNATURES or name.startswith(_PREFIXES) for name in names)


def _name(parameter: str) -> str:
    return unquote(parameter.partition("=")[0]).lower()
